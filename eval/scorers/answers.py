"""Letters, final numbers, and what was to be found in a long text."""

import re
from collections.abc import Sequence
from decimal import Decimal

from pydantic import Field

from eval.scorers.reading import Reading, right, wrong
from posttrain.checks.verdict import Args, text_of
from posttrain.data.rows import Message

A_CALL = "a tool call where text was asked"
PREFIXES = {
    "en": "Answer", "de": "Antwort", "fr": "Réponse", "es": "Respuesta", "th": "คำตอบ", "it": "Risposta",
    "pt": "Resposta", "hi": "उत्तर",
    "bn": "উত্তর", "ja": "答え", "ru": "Ответ", "sw": "Jibu", "te": "సమాధానం", "zh": "答案",
}  # fmt: skip
"""What stands before the final answer: MGSM's languages as in openai/simple-evals mgsm_eval.py; it, pt and hi, which
MGSM lacks, are ours in its manner."""
_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")
_LETTER = r"(?:[(\[]([A-Z])[)\]]|([A-Z])(?![\w']))"
_SAID = re.compile(
    rf"(?i:answer|antwort|réponse|risposta|resposta|respuesta|उत्तर|คำตอบ)\s*(?i:is|ist|est|è|é|es)?\s*:?\s*\**\s*{_LETTER}"
)
_ALONE = re.compile(r"\W*(?:[(\[]([A-Z])[)\]]|([A-Z])(?=[).:,*\n]|\s*$))")


class ChoiceArgs(Args):
    """The letter of the right choice."""

    answer: str = Field(pattern="^[A-Z]$")
    letters: str = Field("ABCD", pattern="^[A-Z]+$")
    """The letters there are; another one cannot be an answer."""


def choice(message: Message, args: ChoiceArgs) -> Reading:
    """The letter that follows the last "answer", else the one that the text begins with."""
    text = text_of(message)
    if text is None:
        return wrong(A_CALL)
    said, begins = _SAID.findall(text), _ALONE.match(text)
    found = "".join(said[-1]) if said else begins[1] or begins[2] if begins else None
    if found is None or found not in args.letters:
        return wrong("no letter of a choice")
    return right(found) if found == args.answer else wrong("another letter", found)


class FinalNumberArgs(Args):
    """The number that is right, and the word that announces it."""

    answer: int | float
    prefix: str = "Answer"


def final_number(message: Message, args: FinalNumberArgs) -> Reading:
    """The last number after the last `prefix`; blanks, a sign of currency and commas between thousands aside."""
    text = text_of(message)
    if text is None:
        return wrong(A_CALL)
    _, there, after = text.rpartition(args.prefix)
    numbers = _NUMBER.findall(after.replace(",", ""))
    if not there or not numbers:
        return wrong(f"no number after {args.prefix!r}")
    got = Decimal(numbers[-1].replace("−", "-"))
    return right(str(got)) if got == Decimal(repr(args.answer)) else wrong("another number", str(got))


class RecallArgs(Args):
    """What was to be found."""

    answers: Sequence[str] = Field(min_length=1)
    every: bool = True
    """The score is the share that was found; false: one of them is enough."""


def recall(message: Message, args: RecallArgs) -> Reading:
    """RULER's `string_match_all` and `string_match_part`: substrings, letters' case aside."""
    text = text_of(message)
    if not text:
        return wrong(A_CALL if text is None else "empty")
    found = [answer for answer in args.answers if answer.casefold() in text.casefold()]
    value = len(found) / len(args.answers) if args.every else float(bool(found))
    reason = "right" if value == 1 else f"{len(found)} of {len(args.answers)} found"
    return Reading(value, reason, ", ".join(found))
