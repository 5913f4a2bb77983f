"""Numbers and mathematics: the last number of an answer, and expressions that are equal whatever their form."""

import re
from collections.abc import Sequence
from decimal import Decimal

from pydantic import Field

from posttrain.checks.mathematics import equal
from posttrain.checks.verdict import NOT_TEXT, RIGHT, Args, Verdict, text_of
from posttrain.data.rows import Message

_NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.\d+|(?<!\d)\.\d+)?(?:[eE][-+]?\d{1,3})?")


class NumericArgs(Args):
    """The number that is right, and how far an answer may lie from it."""

    answer: int | float
    tolerance: float = Field(0.0, ge=0)
    """Absolute; 0 asks for the number itself."""
    relative: float = Field(0.0, ge=0)
    """As a share of the right number; the larger of the two counts."""


class MathArgs(Args):
    """Expressions in LaTeX or plain text, any of which is right."""

    answers: Sequence[str] = Field(min_length=1)


def last_number(text: str) -> Decimal | None:
    """The last number of a text: `1,234.50`, `-3`, `.5`, `6e3`; None where it has none."""
    found = [match.group() for match in _NUMBER.finditer(text) if any(map(str.isdigit, match.group()))]
    return Decimal(found[-1].replace(",", "")) if found else None


def numeric(message: Message, args: NumericArgs) -> Verdict:
    """The last number of the text is the answer, within the tolerance."""
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    got = last_number(text)
    if got is None:
        return Verdict(0.0, "no number")
    wanted = Decimal(repr(args.answer))
    room = max(Decimal(repr(args.tolerance)), Decimal(repr(args.relative)) * abs(wanted))
    return RIGHT if abs(got - wanted) <= room else Verdict(0.0, f"another number ({got})"[:60])


def mathematics(message: Message, args: MathArgs) -> Verdict:
    """The final answer of the text (in `\\boxed{}`, else between dollars, else the last expression) equals one of
    `answers` as mathematics: `1/2`, `0.5` and `\\frac{1}{2}` are the same."""
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    if not text:
        return Verdict(0.0, "empty")
    found = equal(text, tuple(args.answers))
    if found is None:
        return Verdict(None, "the comparison took too long")
    return RIGHT if found else Verdict(0.0, "another value")
