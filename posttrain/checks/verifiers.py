"""Programs that grade an answer against what its prompt's check knows.

A verifier is a function `(message, args) -> Verdict` with the typed arguments it needs; `VERIFIERS` is the whole table.
The gold answer scores 1.0, a wrong one 0.0, and an answer that cannot be graded has `value` None: no grade is not a
wrong grade.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, ValidationError

from posttrain.checks.calls import AcceptedArgs, CallsArgs, call_rules, tool_calls
from posttrain.checks.constraints import ConstraintArgs, constraints
from posttrain.checks.language import UNDETERMINED, identify
from posttrain.checks.numbers import MathArgs, NumericArgs, mathematics, numeric
from posttrain.checks.programs import PythonArgs, python_tests
from posttrain.checks.verdict import NOT_TEXT, RIGHT, Args, Verdict, Verifier, text_of
from posttrain.data.rows import Check, Message
from posttrain.errors import UserError

UNSPACED = "\u0e00-\u0e7f"
"""Thai letters: a word has none but letters beside it."""
SHOWN = 60
"""Characters of a wrong argument that a message shows."""


def grade(check: Check, message: Message, verifiers: Mapping[str, Verifier] | None = None) -> Verdict:
    """Grade an assistant message by VERIFIERS, or by a table of one's own.

    Raises UserError when the check names none of them or its arguments are not as that one needs, and where a verifier
    cannot work on this machine.
    """
    args = arguments(check, verifiers)
    if message.get("role", "assistant") != "assistant":
        return Verdict(None, f"a {message['role']} message is not an answer")
    return (VERIFIERS if verifiers is None else verifiers)[check.name].grade(message, args)


def arguments(check: Check, verifiers: Mapping[str, Verifier] | None = None) -> Args:
    """The check's arguments, typed. Raises UserError for an unknown verifier or arguments that it cannot use."""
    known = VERIFIERS if verifiers is None else verifiers
    if check.name not in known:
        raise UserError(f"check {check.name!r} is no verifier; known are {', '.join(sorted(known))}")
    try:
        return known[check.name].Args.model_validate(check.args)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
    except RecursionError:
        raise UserError(f"check {check.name!r}: its args are nested too deeply; mend check.args of the row") from None
    told = []
    for fault in faults[:3]:
        got = repr(fault["input"])
        got = got if len(got) <= SHOWN else got[: SHOWN - 3] + "..."
        place = ".".join(["args", *map(str, fault["loc"])])
        told.append(f"{place}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {got}")
    raise UserError(f"check {check.name!r} cannot be used ({'; '.join(told)}); mend check.args of the row")


def plain(text: str) -> str:
    """NFC, runs of blanks as one space, no blanks at the ends: what `exact` compares."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


class ExactArgs(Args):
    """Texts, any of which is right."""

    answers: Sequence[str] = Field(min_length=1)


class NeedleArgs(Args):
    """What was hidden in a long text, and what lay beside it."""

    needles: Sequence[str] = Field(min_length=1)
    """All must be said."""
    others: Sequence[str] = ()
    """None may be said: the values that belong to other keys."""


class LanguageArgs(Args):
    """The language an answer is to be in."""

    language: Literal["en", "de", "fr", "it", "pt", "hi", "es", "th"]
    least: float = Field(0.5, ge=0, le=1)
    """Least probability of that language."""


def exact(message: Message, args: ExactArgs) -> Verdict:
    """The text is one of `answers`, blanks aside."""
    if message.get("tool_calls"):
        return NOT_TEXT
    got = plain(message.get("content") or "")
    if got in {plain(answer) for answer in args.answers}:
        return RIGHT
    return Verdict(0.0, "empty" if not got else "another text")


def needle(message: Message, args: NeedleArgs) -> Verdict:
    """Every needle occurs as whole words, none of the others does; blanks and letters' case aside."""
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    if not all(occurs(text, value) for value in args.needles):
        return Verdict(0.0, "not found" if text else "empty")
    return Verdict(0.0, "another one too") if any(occurs(text, value) for value in args.others) else RIGHT


def occurs(text: str, value: str) -> bool:
    """Whether a text has the value as whole words; blanks and letters' case aside."""
    sought = re.escape(plain(value).casefold())
    return re.search(rf"(?<![^\W{UNSPACED}]){sought}(?![^\W{UNSPACED}])", plain(text).casefold()) is not None


def language(message: Message, args: LanguageArgs) -> Verdict:
    """The text is in the language; one too short to tell has no grade."""
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    found, probability = identify(text)
    if found == UNDETERMINED:
        return Verdict(None, "too short to tell its language")
    right = found == args.language and probability >= args.least
    return RIGHT if right else Verdict(0.0, f"in {found} ({probability:.2f})")


VERIFIERS: dict[str, Verifier] = {
    "exact": Verifier(ExactArgs, exact),
    "tool_calls": Verifier(CallsArgs, tool_calls),
    "call_rules": Verifier(AcceptedArgs, call_rules),
    "constraints": Verifier(ConstraintArgs, constraints),
    "numeric": Verifier(NumericArgs, numeric),
    "math": Verifier(MathArgs, mathematics),
    "python_tests": Verifier(PythonArgs, python_tests),
    "needle": Verifier(NeedleArgs, needle),
    "language": Verifier(LanguageArgs, language),
}
