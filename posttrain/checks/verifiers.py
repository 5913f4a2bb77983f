"""Programs that grade an answer against what its prompt's check knows.

A verifier is a function `(message, args) -> Verdict`; `VERIFIERS` is the whole table. The gold answer scores 1.0, a
wrong one 0.0, and an answer that cannot be graded has `value` None: no grade is not a wrong grade.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import Check, Message, canonical_json
from posttrain.errors import UserError


@dataclass(frozen=True)
class Verdict:
    """`value` is 0.0 to 1.0, or None where the answer cannot be graded; `reason` is one short phrase for a reader."""

    value: float | None
    reason: str


Args = Mapping[str, Any]
Verifier = Callable[[Message, Args], Verdict]

RIGHT = Verdict(1.0, "right")


def grade(check: Check, message: Message) -> Verdict:
    """Grade an assistant message. Raises UserError when the check names no verifier or lacks an argument."""
    if check.name not in VERIFIERS:
        raise UserError(f"check {check.name!r} is no verifier; known are {', '.join(sorted(VERIFIERS))}")
    if message.get("role", "assistant") != "assistant":
        return Verdict(None, f"a {message['role']} message is not an answer")
    try:
        return VERIFIERS[check.name](message, check.args)
    except KeyError as missing:
        raise UserError(f"check {check.name!r} lacks its argument {missing}; got {sorted(check.args)}") from missing


def plain(text: str) -> str:
    """NFC, runs of blanks as one space, no blanks at the ends: what `exact` compares."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


def exact(message: Message, args: Args) -> Verdict:
    """The text is one of `answers`, blanks aside."""
    if message.get("tool_calls"):
        return Verdict(0.0, "a tool call where text was asked")
    got = plain(message.get("content") or "")
    if got in {plain(answer) for answer in args["answers"]}:
        return RIGHT
    return Verdict(0.0, "empty" if not got else "another text")


def tool_calls(message: Message, args: Args) -> Verdict:
    """The calls are exactly `calls` (`[{"name", "arguments"}]`) in any order; 2 and 2.0 are the same number."""
    wanted = sorted(_call_key(call["name"], call["arguments"]) for call in args["calls"])
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    if not functions:
        return Verdict(0.0, "no call")
    got = sorted(_call_key(function["name"], function["arguments"]) for function in functions)
    if got == wanted:
        return RIGHT
    if len(got) != len(wanted):
        return Verdict(0.0, f"{len(got)} calls, {len(wanted)} wanted")
    names_differ = sorted(f["name"] for f in functions) != sorted(call["name"] for call in args["calls"])
    return Verdict(0.0, "another function" if names_differ else "other arguments")


def _call_key(name: str, arguments: Any) -> str:
    return canonical_json([name, _numbers_as_one_kind(arguments)])


def _numbers_as_one_kind(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _numbers_as_one_kind(inner) for key, inner in value.items()}
    return [_numbers_as_one_kind(inner) for inner in value] if isinstance(value, list) else value


def constraints(message: Message, args: Args) -> Verdict:
    """Every rule of `rules` (`[{"rule": name, ...}]`) holds strictly; see `RULES`."""
    if message.get("tool_calls"):
        return Verdict(0.0, "a tool call where text was asked")
    text = (message.get("content") or "").strip()
    if not text:
        return Verdict(0.0, "empty")
    for rule in args["rules"]:
        if rule["rule"] not in RULES:
            raise UserError(f"constraint {rule['rule']!r} is no rule; known are {', '.join(sorted(RULES))}")
        if not RULES[rule["rule"]](text, rule):
            return Verdict(0.0, f"rule {rule['rule']} broken")
    return RIGHT


def _without_ending(text: str, ending: str | None) -> str:
    return text.removesuffix(ending).rstrip() if ending else text


def _json_items(text: str) -> list[str] | None:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None


def _bulleted(text: str) -> list[str] | None:
    lines = text.splitlines()
    return [line[2:] for line in lines] if all(line.startswith("- ") for line in lines) else None


def _numbered(text: str) -> list[str] | None:
    lines = text.splitlines()
    right = all(line.startswith(f"{number}. ") for number, line in enumerate(lines, 1))
    return [line.split(". ", 1)[1] for line in lines] if right else None


LAYOUTS: dict[str, Callable[[str], list[str] | None]] = {
    "spaces": lambda text: text.split(" "),
    "commas": lambda text: text.split(", "),
    "lines": str.splitlines,
    "bullets": _bulleted,
    "numbered": _numbered,
    "json": _json_items,
}
"""How a list may be laid out: text to items, or None when the text is not laid out so."""


def _items(text: str, rule: Args) -> bool:
    items = LAYOUTS[rule["layout"]](_without_ending(text, rule.get("before")))
    return items is not None and [item.casefold() for item in items] == [item.casefold() for item in rule["items"]]


def _case(text: str, rule: Args) -> bool:
    body = _without_ending(text, rule.get("before"))
    return body == (body.upper() if rule["case"] == "upper" else body.lower())


RULES: dict[str, Callable[[str, Args], bool]] = {
    "items": _items,
    "case": _case,
    "starts_with": lambda text, rule: text.startswith(rule["text"]),
    "ends_with": lambda text, rule: text.endswith(rule["text"]),
    "contains": lambda text, rule: all(word.casefold() in text.casefold() for word in rule["words"]),
    "excludes": lambda text, rule: not any(word.casefold() in text.casefold() for word in rule["words"]),
    "words": lambda text, rule: rule.get("least", 0) <= len(text.split()) <= rule.get("most", len(text.split())),
    "lines": lambda text, rule: len(text.splitlines()) == rule["count"],
}
"""Checkable constraints in the manner of IFEval (arXiv 2311.07911). `items` {layout, items, before?}: exactly these
items in this order and layout, letters' case aside, `before` a closing text; `case` {case, before?}; `words` {least?,
most?}."""

VERIFIERS: dict[str, Verifier] = {"exact": exact, "tool_calls": tool_calls, "constraints": constraints}
