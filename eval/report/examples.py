"""The answers that changed most, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.evaluations import Evaluation
from eval.report.paired import common_prompts
from posttrain.data.rows import Message, Prompt

SHOWN = 10
"""Changes of either kind."""
PROMPT_CHARS, ANSWER_CHARS = 1600, 1200
"""Of a longer text the beginning and the end are shown."""


@dataclass(frozen=True)
class Answer:
    text: str
    grade: float
    reason: str
    tokens: int


@dataclass(frozen=True)
class Example:
    """A prompt with its answer before and after. `wanted` is what its check asks for."""

    id: str
    capability: str
    language: str
    asked: str
    wanted: str
    before: Answer
    after: Answer


@dataclass(frozen=True)
class Changed:
    """How many prompts went up and down in grade, and the largest changes of either kind."""

    prompts: int
    improved: int
    worsened: int
    best: tuple[Example, ...]
    worst: tuple[Example, ...]


def changed(before: Evaluation, after: Evaluation, shown: int = SHOWN) -> Changed:
    """The `shown` best and worst changes; of equal ones each suite has its turn."""
    prompts = common_prompts(before, after)
    gains = {prompt.id: after.grades[prompt.id] - before.grades[prompt.id] for prompt in prompts}
    up = _in_turn([prompt for prompt in prompts if gains[prompt.id] > 0], gains, -1)[:shown]
    down = _in_turn([prompt for prompt in prompts if gains[prompt.id] < 0], gains, 1)[:shown]
    full = after.full_prompts([prompt.id for prompt in (*up, *down)])
    best, worst = (tuple(_example(full[prompt.id], before, after) for prompt in own) for own in (up, down))
    better, worse = (sum(sign * gain > 0 for gain in gains.values()) for sign in (1, -1))
    return Changed(len(prompts), better, worse, best, worst)


def _in_turn(prompts: Sequence[Prompt], gains: dict[str, float], sign: int) -> list[Prompt]:
    """By size of the change; among equal ones the first of each suite, then the second of each, in id order."""
    turn: dict[tuple[str, float], int] = {}
    keys = {}
    for prompt in sorted(prompts, key=lambda prompt: prompt.id):
        of = (prompt.capability, gains[prompt.id])
        turn[of] = turn.get(of, 0) + 1
        keys[prompt.id] = (sign * gains[prompt.id], turn[of], prompt.capability)
    return sorted(prompts, key=lambda prompt: keys[prompt.id])


def _example(prompt: Prompt, before: Evaluation, after: Evaluation) -> Example:
    check = prompt.check
    wanted = f"{check.name} {json.dumps(check.args, ensure_ascii=False)}" if check else ""
    return Example(
        prompt.id, prompt.capability, prompt.language, clip(conversation(prompt.messages), PROMPT_CHARS),
        clip(wanted, ANSWER_CHARS), _answer(before, prompt.id), _answer(after, prompt.id),
    )  # fmt: skip


def _answer(column: Evaluation, prompt_id: str) -> Answer:
    response, sample = column.answers[prompt_id], column.samples.get(prompt_id)
    reason = sample.reason if sample else ""
    return Answer(clip(response.text, ANSWER_CHARS), column.grades[prompt_id], reason, response.tokens)


def conversation(messages: Sequence[Message]) -> str:
    """The text of a single user message; of a longer conversation every message with its role before it."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return str(messages[0].get("content") or "")
    return "\n".join(f"{message['role']}: {_said(message)}" for message in messages)


def _said(message: Message) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    parts = [str(message.get("content") or ""), *([json.dumps(calls, ensure_ascii=False)] if calls else [])]
    return " ".join(filter(None, parts))


def clip(text: str, limit: int) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"
