"""Reading what a model wrote: JSON of a shape, tagged sections, numbered lists, code; the rest is dropped."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.data.records import parse_json
from synth.operators.items import Item
from synth.operators.work import Work

FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"^[ \t]*(\d{1,4})[.)][ \t]+(.+?)(?=^[ \t]*\d{1,4}[.)][ \t]|\Z)", re.DOTALL | re.MULTILINE)
Read = Callable[[str], Any]


class Unreadable(ValueError):
    """What was asked for does not stand in a text; the message is the reason that is counted, without the text."""


def parse(work: Work, items: Sequence[Item], read: Read, of: str, into: str, step: str = "parse") -> list[Item]:
    """`read` of each item's text `of`, as `into`; an item that raises Unreadable is dropped with that reason."""
    kept = []
    for item in items:
        work.tally(step, item.language).came += 1
        try:
            kept.append(item.plus(**{into: read(item[of])}))
            work.tally(step, item.language).left += 1
        except Unreadable as error:
            work.drop(item, step, str(error), item[of])
    return kept


def as_json(shape: Any = Any) -> Read:
    """A reader of JSON, alone or in a fenced block, as `shape`: a pydantic model, `list[str]`, … checked strictly."""
    adapter = _adapter(shape)

    def read(text: str) -> Any:
        fenced = [body for _, body in FENCE.findall(text)]
        try:
            value = parse_json((fenced[-1] if fenced else text).strip())
        except ValueError:
            raise Unreadable("broken JSON") from None
        try:
            return adapter.validate_python(value, strict=True)
        except ValidationError:
            raise Unreadable("JSON of another shape") from None

    return read


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def tagged(*names: str) -> Read:
    """A reader of sections `<name>…</name>`, each once and none empty: name → text."""

    def read(text: str) -> dict[str, str]:
        found = {}
        for name in names:
            sections = re.findall(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>", text, re.DOTALL)
            if len(sections) != 1:
                raise Unreadable(f"{'no' if not sections else 'several'} <{name}>")
            found[name] = sections[0].strip()
            if not found[name]:
                raise Unreadable(f"empty <{name}>")
        return found

    return read


def choice(**words: Sequence[str]) -> Read:
    """A reader of sections `<name>word</name>` that each hold one of their words, letters' case aside: name → word."""
    sections = tagged(*words)

    def read(text: str) -> dict[str, str]:
        found = {name: value.lower() for name, value in sections(text).items()}
        if any(value not in words[name] for name, value in found.items()):
            raise Unreadable("another word than was asked for")
        return found

    return read


def numbered(text: str) -> list[str]:
    """The points of a list `1. … 2. …` that counts up from 1; what stands before it is left out."""
    found = NUMBER.findall(text)
    if not found or [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        raise Unreadable("no numbered list")
    return [point.strip() for _, point in found]


def code(*languages: str) -> Read:
    """A reader of the last fenced block, in one of the languages where such are named."""

    def read(text: str) -> str:
        found = [body for language, body in FENCE.findall(text) if not languages or language.lower() in languages]
        if not found or not found[-1].strip():
            raise Unreadable("no code block")
        return str(found[-1]).rstrip() + "\n"

    return read
