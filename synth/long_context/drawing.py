"""What is begun: kinds by weight, lengths in turn, evidence at even places, documents one after the other."""

import math
from collections.abc import Iterator
from random import Random

from posttrain.data.shares import largest_remainder
from posttrain.errors import UserError
from synth.documents import INSTRUCTIONS, Library
from synth.long_context.contexts import evenly
from synth.long_context.repository import Imports, read_imports
from synth.operators import Item, Work
from synth.pipelines.long_context_spec import OVER_ASK, LongContextConfig

SPOKEN = ("qa", "summary")
"""Kinds whose dialog is in the document's language."""
SHORTEST = {"qa": 8, "needles": 8, "summary": 1}
"""A document has at least so large a part of a chunk's tokens; one that is summarised by way of its chunks, all."""
FILE_SHARE = 8
"""A missing file has at most so large a part of its row."""
IMPORTERS_SPREAD = 3
"""A row is at least so many times as long as the smallest importers that must be in it."""
FEW = 3
"""Shown of the titles that cannot be used."""


class Shelf:
    """The documents of a source that can be used, and those that cannot, each of which is dropped once."""

    def __init__(self, work: Work, library: Library):
        self.work, self.library = work, library
        self.config: LongContextConfig = work.config
        self._imports: Imports | None = None
        self._dropped: set[tuple[str, str]] = set()

    def draw(self, number: int, wanted: int) -> list[Item]:
        """Items with `kind`, `length`, `title`, and `position`: where in its row the evidence is to stand, 0 to 1."""
        items = []
        for kind, count in largest_remainder(self.config.kinds, math.ceil(OVER_ASK * wanted)).items():
            rng = self.work.rng("draw", kind, number)
            titles = self._titles(kind, rng)
            for place, position in enumerate(evenly(rng, count) if count else []):
                title = next(titles, "")
                length = self._length(kind, title, place + number)
                language = self.library.language(title) if kind in SPOKEN else "en"
                values = {"kind": kind, "number": [number, place], "length": length, "title": title}
                items.append(self.work.item(values | {"position": round(position, 4)}, language))
        return items

    def _length(self, kind: str, title: str, turn: int) -> int:
        """The row's greatest length, in turn; of those that a missing file and its smallest importers fit in."""
        fitting = lengths = self.config.lengths
        if kind == "repository":
            sizes = sorted(map(self.library.tokens, self.imports.importers[title]))[: self.config.importers]
            least = max(sum(sizes) * IMPORTERS_SPREAD, self.library.tokens(title) * FILE_SHARE)
            fitting = tuple(length for length in lengths if length >= least) or lengths
        return fitting[turn % len(fitting)]

    def chunk_of(self, item: Item) -> int:
        return min(self.config.chunk, int(item["length"]) // 2)

    @property
    def imports(self) -> Imports:
        """Read when they are first wanted."""
        self._imports = self._imports or read_imports(self.library)
        return self._imports

    def _titles(self, kind: str, rng: Random) -> Iterator[str]:
        """The usable titles in random order, again and again. Raises UserError where there is none."""
        titles = self.imports.needed(self.config.importers) if kind == "repository" else list(self.library.titles)
        rng.shuffle(titles)
        while True:
            found = False
            for title in titles:
                if not self._drop(kind, title):
                    found = True
                    yield title
            if not found:
                why = f"no file that {self.config.importers} others import" if kind == "repository" else "none of use"
                raise UserError(
                    f"prompts.{self.work.capability}.documents: among {len(self.library.titles):,} there is {why} "
                    f"for kind {kind!r}; {self._told() or 'give others, or leave the kind out'}"
                )

    def _drop(self, kind: str, title: str) -> str:
        reason = self._fault(kind, title)
        if reason and (title, reason) not in self._dropped:
            self._dropped.add((title, reason))
            self.work.drop(Item(title), "documents", reason, title)
        return reason

    def _fault(self, kind: str, title: str) -> str:
        """Why a document cannot be what a row is about, if so."""
        if reason := self.library.fault(title):
            return reason
        if kind == "repository":
            small = self.library.tokens(title) <= max(self.config.lengths) // FILE_SHARE
            return "" if small else "too long to be written again"
        if kind in SPOKEN and self.library.language(title) not in self.config.languages:
            return "language of the document"
        if INSTRUCTIONS.search(self.library.text(title)):
            return "instructions in the document"
        least = min(self.config.chunk, min(self.config.lengths) // 2) // SHORTEST[kind]
        return "document is short" if self.library.tokens(title) < least else ""

    def _told(self) -> str:
        return "; ".join(f"{title}: {reason}" for title, reason in sorted(self._dropped)[:FEW])
