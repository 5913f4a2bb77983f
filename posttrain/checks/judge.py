"""A model as judge: which of two answers is better, asked in both orders, or how good one is.

The judge gets a rubric prompt (judge_pair.jinja, judge_point.jinja) and must end with a verdict in one form. A verdict
that cannot be read is no verdict: it is counted, and never taken for a low one. A judge that keeps to the form in none
of its first answers stops the stage.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import jinja2

from posttrain.data.rows import RATINGS, Message, Prompt, Response
from posttrain.errors import UserError

CRITERIA = """\
1. It does what was asked, all of it, in the language and form that was asked for.
2. What it says is true, and its reasoning and calculations are right.
3. It is clear, and as short as the matter allows."""
"""The rubric where a recipe gives none."""
TRIAL = 16
"""Answers that are looked at before the rest is asked: a judge that cannot keep to the form costs no more."""
SHOWN = 160
"""Characters of an unreadable answer that a message shows."""

Ask = Callable[[list[Prompt], str], list[Response]]
"""Puts prompts to the judge, one answer each; the text names the journal that keeps them."""
Side = Literal["first", "second", "tie"]

_PAIR = re.compile(
    r"^\W*verdict\W+(?:(tie)|(a|b)\W+(?:is\W+)?((?:significantly\W+|slightly\W+|marginally\W+)?better))\W*$",
    re.IGNORECASE | re.MULTILINE,
)
_POINT = re.compile(r"^\W*score\W+(10|[1-9])(?:\s*/\s*10)?\W*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, as text."""

    id: str
    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class Preference:
    """Which side is better, and by how much (one of RATINGS; empty for a tie)."""

    side: Side
    rating: str = ""


Found = TypeVar("Found")


@dataclass(frozen=True)
class Judged(Generic[Found]):
    """What was found by id; ids without a readable verdict are not there. `counts` says what became of the verdicts."""

    found: dict[str, Found]
    counts: dict[str, int] = field(default_factory=dict)


def compare(comparisons: Sequence[Comparison], ask: Ask, criteria: str = CRITERIA) -> Judged[Preference]:
    """Judge each pair in both orders. Sides that change with the order are a tie (`order_decides`); of two ratings for
    one side the weaker holds; a pair with an unreadable verdict has none.

    Raises UserError for a judge that never keeps to the form.
    """
    asked = {
        (c.id, swapped): _prompt("judge_pair", c.prompt, criteria, first=one, second=two)
        for c in comparisons
        for swapped, one, two in ((False, c.first, c.second), (True, c.second, c.first))
    }
    verdicts = _verdicts(list(asked.values()), ask, read_pair, "judge")
    counts: Counter[str] = Counter({"pairs": len(comparisons)})
    found = {}
    for comparison in comparisons:
        straight = verdicts.get(asked[comparison.id, False].id)
        turned = verdicts.get(asked[comparison.id, True].id)
        counts["unreadable_verdicts"] += (straight is None) + (turned is None)
        if straight is None or turned is None:
            counts["pairs_without_verdict"] += 1
            continue
        found[comparison.id] = together(straight, _swapped(turned))
        counts["order_decides"] += {straight.side, _swapped(turned).side} == {"first", "second"}
        counts["ties"] += found[comparison.id].side == "tie"
        counts["first_shown_preferred"] += (straight.side == "first") + (turned.side == "first")
    return Judged(found, dict(counts))


def rate(answers: Mapping[str, tuple[Prompt, str]], ask: Ask, criteria: str = CRITERIA) -> Judged[float]:
    """Grade single answers (id → prompt and text), 1 to 10.

    Raises UserError for a judge that never keeps to the form.
    """
    asked = {
        key: _prompt("judge_point", prompt, criteria, answer=text or "(empty)")
        for key, (prompt, text) in answers.items()
    }
    scores = _verdicts(list(asked.values()), ask, read_point, "judge")
    found = {key: scores[prompt.id] for key, prompt in asked.items() if prompt.id in scores}
    return Judged(found, {"answers": len(asked), "unreadable_verdicts": len(asked) - len(found)})


def read_pair(text: str) -> Preference | None:
    """The last verdict of a judge's answer, of the two sides as they were shown; None where there is none."""
    verdicts = _PAIR.findall(text)
    if not verdicts:
        return None
    tie, side, rating = verdicts[-1]
    if tie:
        return Preference("tie")
    return Preference("first" if side.lower() == "a" else "second", "_".join(re.findall(r"\w+", rating.lower())))


def read_point(text: str) -> float | None:
    """The last score of a judge's answer, 1 to 10; None where there is none."""
    scores = _POINT.findall(text)
    return float(scores[-1]) if scores else None


def together(one: Preference, two: Preference) -> Preference:
    """What two verdicts on the same pair come to, both seen from the first answer."""
    if one.side != two.side or one.side == "tie":
        return Preference("tie")
    return max(one, two, key=lambda verdict: RATINGS.index(verdict.rating))


def _swapped(verdict: Preference) -> Preference:
    sides: dict[Side, Side] = {"first": "second", "second": "first", "tie": "tie"}
    return Preference(sides[verdict.side], verdict.rating)


def _verdicts(prompts: list[Prompt], ask: Ask, read: Callable[[str], Any], journal: str) -> dict[str, Any]:
    """Prompt id → what could be read of its answer; one that was cut says nothing."""
    distinct = sorted({prompt.id: prompt for prompt in prompts}.values(), key=lambda prompt: prompt.id)
    if len(distinct) > TRIAL:
        _refuse_if_unreadable(ask(distinct[:TRIAL], f"{journal}-trial"), read)
    responses = ask(distinct, journal) if distinct else []
    _refuse_if_unreadable(responses, read)
    return {r.prompt_id: found for r in responses if (found := _read(r, read)) is not None}


def _read(response: Response, read: Callable[[str], Any]) -> Any:
    return read(response.text) if response.finish == "stop" else None


def _refuse_if_unreadable(responses: list[Response], read: Callable[[str], Any]) -> None:
    if responses and all(_read(response, read) is None for response in responses):
        shown = " ".join(responses[0].text.split())[:SHOWN]
        raise UserError(
            f"none of the judge's first {len(responses)} answers ends with a verdict in the form it was asked for "
            f"(the first ended by {responses[0].finish}: {shown!r}); name a model that follows instructions, or raise "
            "max_new_tokens"
        )


def _prompt(template: str, prompt: Prompt, criteria: str, **answers: str) -> Prompt:
    conversation = [{"role": message["role"], "text": text_of(message)} for message in prompt.messages]
    tools = (
        json.dumps([tool.get("function", tool) for tool in prompt.tools], ensure_ascii=False) if prompt.tools else ""
    )
    text = _template(template).render(criteria=criteria.strip(), tools=tools, conversation=conversation, **answers)
    return Prompt(({"role": "user", "content": text.strip()},), "judge", prompt.language, parents=(prompt.id,))


def text_of(message: Message) -> str:
    """A message as text for a reader: its content, and its calls as JSON."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    content = message.get("content") or ""
    content = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return "\n".join(filter(None, [content, *(json.dumps(call, ensure_ascii=False) for call in calls)]))


@cache
def _template(name: str) -> jinja2.Template:
    source = Path(__file__).with_name(f"{name}.jinja").read_text(encoding="utf-8")
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(autoescape=False, **options).from_string(source)
