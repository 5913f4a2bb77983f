"""Contexts of a wanted length: a document cut into chunks, whole in its place among others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from synth.documents import Count, Library

PARAGRAPH = re.compile(r".*?(?:\n[ \t]*\n\s*|\Z)", re.DOTALL)
LINE = re.compile(r".*?(?:\n|\Z)", re.DOTALL)
NEAR = 0.5
"""The chance that the next distractor comes from the document's own folder: what is like it distracts most."""
LEAST_PART = 48
"""Tokens of the smallest part of a document that is put into a context."""
WRAPPED = 24
"""Tokens that a document's tags and title take."""
CHARACTERS = 16
"""Of an unbroken line: at most so many a token are cut off at once."""


@dataclass(frozen=True)
class Part:
    """A document, or a stretch of one, as it stands in a context."""

    title: str
    text: str

    @property
    def shown(self) -> str:
        return f'<document title="{self.title}">\n{self.text}\n</document>'


def joined(parts: Sequence[Part]) -> str:
    return "\n\n".join(part.shown for part in parts)


def cut(text: str, most: int, count: Count) -> list[str]:
    """Chunks of at most `most` tokens, of whole paragraphs where possible; joined they are the text."""
    chunks, held, size = list[str](), list[str](), 0
    for piece, tokens in _pieces(text, most, count):
        if held and size + tokens > most:
            chunks.append("".join(held))
            held, size = [], 0
        held.append(piece)
        size += tokens
    return [*chunks, "".join(held)] if held else chunks


def _pieces(text: str, most: int, count: Count) -> list[tuple[str, int]]:
    """Paragraphs with their tokens; of one that is too long its lines, of such a line stretches."""
    found = []
    for paragraph in filter(None, PARAGRAPH.findall(text)):
        tokens = count(paragraph)
        if tokens <= most:
            found.append((paragraph, tokens))
            continue
        for line in filter(None, LINE.findall(paragraph)):
            tokens = count(line)
            step = len(line) if tokens <= most else max(1, most * len(line) // tokens // 2)
            stretches = [line[at : at + step] for at in range(0, len(line), step)]
            found += [(stretch, tokens if len(stretches) == 1 else count(stretch)) for stretch in stretches]
    return found


def evenly(rng: Random, count: int) -> list[float]:
    """`count` numbers from 0 to 1, one in each of as many equal steps, in random order."""
    places = [(place + rng.random()) / count for place in range(count)]
    rng.shuffle(places)
    return places


def fill(rng: Random, library: Library, tokens: int, beside: str, used: set[str]) -> list[Part]:
    """Whole other documents of together about `tokens`; the last one is its beginning. `used` grows by their titles."""
    near = list(library.beside[beside.rpartition("/")[0]])
    far = list(library.titles)
    rng.shuffle(near)
    rng.shuffle(far)
    parts = []
    while tokens >= LEAST_PART + WRAPPED and (near or far):
        pool = near if near and (not far or rng.random() < NEAR) else far
        title = pool.pop()
        if title in used or library.fault(title):
            continue
        used.add(title)
        room, text = tokens - WRAPPED, library.text(title)
        if library.tokens(title) > room:
            text = beginning(text, room, library.count)
        if text:
            parts.append(Part(title, text))
            tokens -= WRAPPED + library.count(text)
    return parts


def beginning(text: str, most: int, count: Count) -> str:
    """As many whole paragraphs from the start of a text as `most` tokens hold; "" where they hold none."""
    held, size = list[str](), 0
    for piece, tokens in _pieces(text[: most * CHARACTERS], most, count):
        if size + tokens > most:
            break
        held.append(piece)
        size += tokens
    return "".join(held).strip()


@dataclass(frozen=True)
class Scene:
    """A document among others; `chunk` is the stretch of it that is asked about."""

    parts: tuple[Part, ...]
    main: Part
    chunk: str

    @property
    def text(self) -> str:
        return joined(self.parts)


def scene(rng: Random, library: Library, title: str, budget: int, chunk: int, position: float) -> Scene:
    """A document among others, together about `budget` tokens, with a chunk of it about `position` (0 to 1).

    A document that is longer than the budget is cut to a stretch of neighbouring chunks.
    """
    chunks = cut(library.text(title), chunk, library.count)
    sizes = [library.count(one) for one in chunks]
    first, last = _window(rng, sizes, budget - WRAPPED)
    chunks, sizes = chunks[first:last], sizes[first:last]
    main = Part(title, "".join(chunks).strip())
    rest = max(0, budget - WRAPPED - sum(sizes))
    middles = [sum(sizes[:place]) + size / 2 for place, size in enumerate(sizes)]
    before = [position * budget - middle for middle in middles]
    fitting = [place for place, tokens in enumerate(before) if 0 <= tokens <= rest]
    nearest = min(range(len(sizes)), key=lambda place: max(-before[place], before[place] - rest))
    place = rng.choice(fitting) if fitting else nearest
    front, used = int(min(max(before[place], 0), rest)), {title}
    parts = [*fill(rng, library, front, title, used), main]
    parts += fill(rng, library, rest - front, title, used)
    return Scene(tuple(parts), main, chunks[place].strip())


def _window(rng: Random, sizes: Sequence[int], budget: int) -> tuple[int, int]:
    """First and behind-last of as many neighbouring chunks as the budget holds, at least one; all where they fit."""
    if sum(sizes) <= budget:
        return 0, len(sizes)
    first = rng.randrange(len(sizes))
    last, total = first + 1, sizes[first]
    while last < len(sizes) and total + sizes[last] <= budget:
        total += sizes[last]
        last += 1
    while first and total + sizes[first - 1] <= budget:
        first -= 1
        total += sizes[first]
    return first, last
