"""Operators that make another text of one: in another language, or a better one."""

from collections.abc import Sequence
from dataclasses import replace

from synth.operators.asking import Temperature, ask
from synth.operators.checking import in_language, sift
from synth.operators.items import Item
from synth.operators.work import TEACHER, Work
from synth.world.languages import ENGLISH_NAMES

TRANSLATE = "common/translate"
"""Given `text`, and as `language` the English name of the language it is to be in."""


def translate(
    work: Work, items: Sequence[Item], of: str, into: str, to: str, *, template: str = TRANSLATE,
    temperature: Temperature | None = None, model: str = TEACHER,
) -> list[Item]:  # fmt: skip
    """The text `of` in the language `to` (a code of the eight), which becomes the item's; one in another is dropped."""
    step = f"translate to {to}"
    ready = [replace(item, language=to).plus(text=item[of], language=ENGLISH_NAMES[to]) for item in items]
    done = ask(work, ready, template, into, temperature=temperature, model=model, step=step)
    return in_language(work, done, into, step=f"{step}: language")


def revise(
    work: Work, items: Sequence[Item], template: str, of: str, into: str, *, temperature: Temperature | None = None,
    model: str = TEACHER, step: str = "revise",
) -> list[Item]:  # fmt: skip
    """As `ask`, for a better version of the text `of`; one that comes back as it was is dropped."""
    done = ask(work, items, template, into, temperature=temperature, model=model, step=step)

    def test(item: Item) -> str:
        return "not revised" if item[into].split() == str(item[of]).split() else ""

    return sift(work, done, test, f"{step}: changed", into)
