"""Constraints on an answer's form that a program can check, in the manner of IFEval (arXiv 2311.07911)."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from posttrain.checks.verdict import NOT_TEXT, RIGHT, Args, Verdict, text_of
from posttrain.data.rows import Message

Layout = Literal["spaces", "commas", "lines", "bullets", "numbered", "json"]


class Items(Args):
    """Exactly these items in this order and layout, letters' case aside; `before` is a closing text."""

    rule: Literal["items"]
    items: Sequence[str]
    layout: Layout
    before: str | None = None


class Case(Args):
    """All letters are upper or lower case, but for the closing text `before`."""

    rule: Literal["case"]
    case: Literal["upper", "lower"]
    before: str | None = None


class Ends(Args):
    """The answer begins, or ends, with a text."""

    rule: Literal["starts_with", "ends_with"]
    text: str


class Words(Args):
    """Every word occurs, or none of them does, letters' case aside."""

    rule: Literal["contains", "excludes"]
    words: Sequence[str]


class WordCount(Args):
    """So many words by blanks; None asks for no least or no most."""

    rule: Literal["words"]
    least: int | None = Field(None, ge=0)
    most: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> "WordCount":
        if self.least is None and self.most is None:
            raise ValueError("neither least nor most is given")
        return self


class LineCount(Args):
    """So many lines."""

    rule: Literal["lines"]
    count: int = Field(ge=0)


Rule = Annotated[Items | Case | Ends | Words | WordCount | LineCount, Field(discriminator="rule")]


class ConstraintArgs(Args):
    """Every rule must hold."""

    rules: Sequence[Rule]


def constraints(message: Message, args: ConstraintArgs) -> Verdict:
    """Every rule holds strictly; an empty answer keeps none."""
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    if not text:
        return Verdict(0.0, "empty")
    for rule in args.rules:
        if not RULES[rule.rule](text, rule):
            return Verdict(0.0, f"rule {rule.rule} broken")
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


LAYOUTS: dict[Layout, Callable[[str], list[str] | None]] = {
    "spaces": lambda text: text.split(" "),
    "commas": lambda text: text.split(", "),
    "lines": str.splitlines,
    "bullets": _bulleted,
    "numbered": _numbered,
    "json": _json_items,
}
"""How a list may be laid out: text to items, or None when the text is not laid out so."""


def _items(text: str, rule: Items) -> bool:
    items = LAYOUTS[rule.layout](_without_ending(text, rule.before))
    return items is not None and [item.casefold() for item in items] == [item.casefold() for item in rule.items]


def _case(text: str, rule: Case) -> bool:
    body = _without_ending(text, rule.before)
    return body == (body.upper() if rule.case == "upper" else body.lower())


def _word_count(text: str, rule: WordCount) -> bool:
    count = len(text.split())
    return (rule.least or 0) <= count <= (count if rule.most is None else rule.most)


RULES: dict[str, Callable[[str, Any], bool]] = {
    "items": _items,
    "case": _case,
    "starts_with": lambda text, rule: text.startswith(rule.text),
    "ends_with": lambda text, rule: text.endswith(rule.text),
    "contains": lambda text, rule: all(word.casefold() in text.casefold() for word in rule.words),
    "excludes": lambda text, rule: not any(word.casefold() in text.casefold() for word in rule.words),
    "words": _word_count,
    "lines": lambda text, rule: len(text.splitlines()) == rule.count,
}
