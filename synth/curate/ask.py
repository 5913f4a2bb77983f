"""Asking a model about rows, and reading ratings, tags and topics out of what it says."""

import re
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from posttrain.data.overlap import said
from posttrain.data.rows import Prompt, Response, Row
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.curate.table import SHOWN_CHARACTERS
from synth.curate.wiring import Asking
from synth.prompts import operator_prompt

RATING = re.compile(r"rating\W{0,4}:\W*(\d+)", re.IGNORECASE)
TAGS = re.compile(r"tags\W{0,4}:(.*)", re.IGNORECASE)
TOPIC = re.compile(r"topic\W{0,4}:(.*)", re.IGNORECASE)
TRIAL = 16
"""Answers that are looked at before the rest is asked: a model that cannot keep to the form costs no more."""
TAG_CHARACTERS = 60
"""A longer tag or topic is a sentence, and no tag."""


def ask(
    job: Job, model: str, rows: Iterable[Row], question: Callable[[Row], str], read: Callable[[str, Row], Any]
) -> dict[str, Any]:
    """Put a question about every row to the input `model`; row id → what `read` finds in the answer.

    None, counted in the summary under `unreadable`, where it finds nothing or the answer was cut. Journaled. Raises
    UserError when none of the first answers can be read.
    """
    config: Asking = job.config
    of_id = {row.id: row for row in rows}
    prompts = [Prompt(({"role": "user", "content": question(row)},), "curate", id=row.id) for row in of_id.values()]
    prompts.sort(key=lambda prompt: prompt.id)
    sampling = Sampling(1, 0.0, 1.0, config.max_new_tokens)
    found: dict[str, Any] = {}
    with closing(open_engine(job.inputs[model], job.machine)) as engine:
        for name, asked in ((f"{model}-trial", prompts[:TRIAL]), (model, prompts[TRIAL:])):
            answers = answer_prompts(job, engine, asked, sampling, config.chunk, getattr(config, model), name)
            found |= {a.prompt_id: read(a.text, of_id[a.prompt_id]) if a.finish == "stop" else None for a in answers}
            if answers and all(value is None for value in found.values()):
                raise UserError(_nothing_readable(job, model, answers))
    unreadable = sum(value is None for value in found.values())
    job.summary.setdefault("asked", {})[model] = {"rows": len(found), "unreadable": unreadable}
    if unreadable:
        job.log.warning("%d of %d answers of the %s could not be read", unreadable, len(found), model)
    return found


def _nothing_readable(job: Job, model: str, answers: list[Response]) -> str:
    shown = " ".join(answers[0].text.split())[:SHOWN_CHARACTERS]
    return (
        f"none of the first {len(answers)} answers of the {model} {getattr(job.config, model)} has the form it was "
        f"asked for (the first ended by {answers[0].finish}: {shown!r}); name a model that follows instructions, or "
        "raise max_new_tokens"
    )


def questioned(name: str, row: Row, whole: bool, **variables: Any) -> str:
    """The text of a question of `synth/prompts/curate` about the whole conversation, or the user's part of it."""
    messages = [message for message in row.messages if whole or message["role"] in ("system", "user")]
    conversation = "\n\n".join(f"{message['role']}: {said(message)}" for message in messages)
    return operator_prompt(f"curate/{name}", conversation=conversation, **variables)


def rating(text: str, points: int) -> int | None:
    """The last `Rating: N` with N of 1 to `points`, else None: an unreadable grade is no grade."""
    found = RATING.findall(text)
    return int(found[-1]) if found and 1 <= int(found[-1]) <= points else None


def tags(text: str) -> list[str] | None:
    """The different tags after `Tags:`, lower case, in order; None where there are none."""
    found = TAGS.findall(text)
    listed = [tag.strip(" .*`'\"[]").lower() for tag in found[-1].split(",")] if found else []
    return list(dict.fromkeys(tag for tag in listed if 0 < len(tag) <= TAG_CHARACTERS)) or None


def topic(text: str, known: tuple[str, ...]) -> str | None:
    """What stands after `Topic:`, as `known` spells it where there are such; None for another one or none."""
    found = TOPIC.findall(text)
    named = found[-1].strip(" .*`'\"").lower() if found else ""
    if known:
        return {one.lower(): one for one in known}.get(named)
    return named if 0 < len(named) <= TAG_CHARACTERS else None
