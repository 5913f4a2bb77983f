"""Dialogs of the dialog suites: calls are run on a small office, and after an answer the user speaks again."""

import json
from collections.abc import Sequence

from eval.desk import State, run_call
from posttrain.checks.calls import functions_of
from posttrain.checks.tools import result_text
from posttrain.data.rows import Message, Prompt, Response
from posttrain.engines import dialogs
from posttrain.engines.dialogs import Dialog, Reply
from posttrain.engines.protocol import Engine, Sampling
from posttrain.stages import Job

STEPS = 8
"""Messages the model may write in one turn before the dialog is given up: one that calls for ever would not end."""


def hold(
    job: Job, engine: Engine, prompts: Sequence[Prompt], sampling: Sampling, chunk: int, journal: str
) -> list[Response]:
    """One response to each prompt, whose text is the transcript: a JSON list of messages. Each step has its journal."""
    held = dialogs.hold(
        job, engine, prompts, _office, sampling, chunk=chunk, model=job.name, journal=journal, most=STEPS
    )
    return [_response(dialog) for dialog in held]


def _office(prompt: Prompt) -> Reply:
    """Runs the calls on an office of the dialog's own, or lets the user speak his next turn."""
    assert prompt.check is not None
    state, turns = State(prompt.check.args["state"]), list(prompt.check.args["turns"])

    def reply(messages: list[Message]) -> list[Message]:
        calls = functions_of(messages[-1])
        results = [run_call(state, call["name"], call["arguments"]) for call in calls]
        if calls:
            return [{"role": "tool", "content": result_text(result)} for result in results]
        said = sum(message["role"] == "user" for message in messages)
        return [{"role": "user", "content": turns[said]["user"]}] if said < len(turns) else []

    return reply


def _response(dialog: Dialog) -> Response:
    messages = [*dialog.prompt.messages, *dialog.said]
    text, first = json.dumps(messages, ensure_ascii=False), dialog.first
    return Response(first.prompt_id, first.index, text, dialog.finish, dialog.tokens, None, first.made_by)
