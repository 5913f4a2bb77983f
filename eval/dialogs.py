"""Dialogs whose tool calls are run: turn by turn, all dialogs that wait for the model at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eval.desk import State, result_text, run_call
from posttrain.checks.calls import functions_of
from posttrain.data.rows import Message, Prompt, Response, content_id
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling
from posttrain.stages import Job

STEPS = 8
"""Messages the model may write in one turn before the dialog is given up: one that calls for ever would not end."""


@dataclass
class Dialog:
    """One dialog under way."""

    prompt: Prompt
    messages: list[Message]
    state: State
    turns: list[dict[str, Any]]
    steps: int = 0
    tokens: int = 0
    open: bool = True
    finish: str = "stop"
    made_by: dict[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> Prompt:
        """The prompt that the model is to answer next; its id tells the step."""
        return replace(self.prompt, messages=tuple(self.messages), id=content_id(self.prompt.id, len(self.messages)))

    def take(self, message: Message, response: Response) -> None:
        """Go on with what the model wrote: run its calls, or let the user speak."""
        self.tokens, self.steps = self.tokens + response.tokens, self.steps + 1
        self.made_by, self.finish = self.made_by or response.made_by, response.finish
        self.messages.append(message)
        calls = functions_of(message)
        for call in calls:
            result = run_call(self.state, call["name"], call["arguments"])
            self.messages.append({"role": "tool", "content": result_text(result)})
        if response.finish != "stop" or self.steps >= STEPS:
            self.open = False
        elif not calls:
            self._next_turn()

    def _next_turn(self) -> None:
        said = sum(message["role"] == "user" for message in self.messages)
        self.steps, self.open = 0, said < len(self.turns)
        if self.open:
            self.messages.append({"role": "user", "content": self.turns[said]["user"]})


def hold(
    job: Job, engine: Engine, prompts: Sequence[Prompt], sampling: Sampling, chunk: int, journal: str
) -> list[Response]:
    """One response to each prompt, whose text is the transcript: a JSON list of messages. Each step has its journal."""
    dialogs = [_begun(prompt) for prompt in prompts]
    step = 0
    while waiting := [dialog for dialog in dialogs if dialog.open]:
        name = f"{journal}-step-{step}"
        asked = {dialog.now.id: dialog for dialog in waiting}
        responses = answer_prompts(job, engine, [d.now for d in waiting], sampling, chunk, job.name, name)
        for response in responses:
            asked[response.prompt_id].take(engine.renderer.message(response.text), response)
        step += 1
    return [_response(dialog) for dialog in dialogs]


def _begun(prompt: Prompt) -> Dialog:
    assert prompt.check is not None
    args = prompt.check.args
    return Dialog(prompt, list(prompt.messages), State(args["state"]), list(args["turns"]))


def _response(dialog: Dialog) -> Response:
    text = json.dumps(dialog.messages, ensure_ascii=False)
    return Response(dialog.prompt.id, 0, text, dialog.finish, dialog.tokens, None, dialog.made_by)
