"""`search`: the passages of local texts that fit a query best, by BM25 (`pip install 'posttrain[search]'`)."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.overlap import words
from posttrain.data.rows import Tool
from posttrain.errors import UserError

PASSAGE_WORDS = 200
"""Of a passage at most, cut between paragraphs where there are any."""
FOUND = 3
"""Passages a call returns where it does not say."""
SUFFIXES = (".txt", ".md")

SCHEMA: Tool = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Finds the passages of a collection of documents that fit a query best.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "a few words"},
                "count": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 10,
                    "description": f"passages, {FOUND} if left out",
                },
            },
            "required": ["query"],
        },
    },
}

Passage = tuple[str, str]
"""The title of its document, and its text."""


class Library:
    """The passages of a corpus: a folder of .txt and .md files, or a file of records with `text` and maybe `title`.

    Raises UserError when there is no corpus, or no text in it, or bm25s is missing.
    """

    def __init__(self, corpus: str | Path | None):
        if corpus is None:
            raise UserError("tool search: there is nothing to search; name a folder or file of texts at `corpus:`")
        if importlib.util.find_spec("bm25s") is None:
            raise UserError("tool search needs a package that is missing: pip install 'posttrain[search]'")
        from bm25s import BM25

        self.passages = [passage for title, text in _documents(Path(corpus)) for passage in passages(title, text)]
        tokens = [words(f"{title} {text}") for title, text in self.passages]
        self.known = {word for own in tokens for word in own}
        if not self.known:
            raise UserError(
                f"tool search: {corpus} holds no text; name {' or '.join(SUFFIXES)} files, or records with text"
            )
        self.index = BM25()
        self.index.index(tokens, show_progress=False)

    def run(self, query: str, count: int = FOUND) -> dict[str, Any]:
        """`results`: title and text of the `count` best passages, of those that share a word with the query."""
        asked = [word for word in dict.fromkeys(words(query)) if word in self.known]
        if not asked:
            return {"results": []}
        most = min(count, len(self.passages))
        places, scores = self.index.retrieve([asked], k=most, show_progress=False)
        found = [self.passages[place] for place, score in zip(places[0], scores[0], strict=True) if score > 0]
        return {"results": [{"title": title, "text": text} for title, text in found]}


def _documents(corpus: Path) -> Iterator[Passage]:
    from posttrain.data.records import records

    files = [path for path in sorted(corpus.rglob("*")) if path.suffix in SUFFIXES] if corpus.is_dir() else []
    if not corpus.exists():
        raise UserError(f"tool search: {corpus} is not there; name a folder or file of texts")
    for path in files or ([corpus] if corpus.suffix in SUFFIXES else []):
        yield path.stem, path.read_text(encoding="utf-8", errors="replace")
    if not files and corpus.suffix not in SUFFIXES:
        for found in records(str(corpus)):
            text = found.record.get("text")
            if not isinstance(text, str):
                why = found.reason or "has no text"
                raise UserError(f"tool search: {found.place} {why}; every record needs `text`")
            yield str(found.record.get("title") or found.place), text


def passages(title: str, text: str) -> Iterator[Passage]:
    """A document in passages of PASSAGE_WORDS at most: whole paragraphs together, long ones cut between words."""
    held: list[str] = []
    size = 0
    for part in _parts(text):
        count = len(part.split())
        if held and size + count > PASSAGE_WORDS:
            yield title, "\n\n".join(held)
            held, size = [], 0
        held.append(part)
        size += count
    if held:
        yield title, "\n\n".join(held)


def _parts(text: str) -> Iterator[str]:
    for paragraph in filter(str.strip, text.split("\n\n")):
        own = paragraph.split()
        if len(own) <= PASSAGE_WORDS:
            yield paragraph.strip()
        else:
            yield from (" ".join(own[at : at + PASSAGE_WORDS]) for at in range(0, len(own), PASSAGE_WORDS))
