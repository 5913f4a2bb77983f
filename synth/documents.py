"""A library of documents: text, Markdown, reStructuredText, HTML and Python files, or records that have a `text`."""

import re
from collections.abc import Callable
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

from posttrain.chat import CONTROL_TOKENS
from posttrain.checks.language import identify
from posttrain.data.records import records
from posttrain.data.rows import LANGUAGES, content_id
from posttrain.errors import UserError

HTML = (".html", ".htm")
SUFFIXES = (".txt", ".md", ".rst", ".py", *HTML)
IDENTIFIED = 4_000
"""Characters from the middle of a document that its language is told by; the beginning is often a licence."""
HELD = 64
"""Texts that are held in memory at once, beside those that rows are made of."""
INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all\s+|any\s+|everything\s+)?(?:of\s+)?(?:the\s+|your\s+|my\s+)?"
    r"(?:previous|prior|above|earlier|preceding)\b|\byou are now (?:in|a|an|the)\b|"
    r"\b(?:reveal|print|repeat) (?:the|your) (?:system )?(?:prompt|instructions)\b",
    re.IGNORECASE,
)
"""What a text says that speaks to the model that reads it, in the usual words; others are held off by the templates'
fences and by the checks of what comes back."""
SKIPPED = frozenset({"script", "style", "template", "noscript", "head", "nav"})
BLOCKS = frozenset("p div br li ul ol tr table h1 h2 h3 h4 h5 h6 pre section article blockquote dt dd".split())
Count = Callable[[str], int]


class Library:
    """The documents of a folder or file by title: a file's path below the folder, or a record's own `title`.

    Texts are read when they are wanted. `count` counts tokens. Raises UserError where there is no document.
    """

    def __init__(self, source: Path, count: Count):
        self.count = count
        self._paths: dict[str, Path] = {}
        self._texts: dict[str, str] = {}
        if not source.exists():
            raise UserError(f"documents: {source} is not there; name a folder or file of texts")
        if source.is_dir():
            self._paths = {
                path.relative_to(source).as_posix(): path
                for path in sorted(source.rglob("*")) if path.suffix in SUFFIXES and path.is_file()
            }  # fmt: skip
        elif source.suffix in SUFFIXES:
            self._paths = {source.name: source}
        if not self._paths:
            self._texts = _of_records(source)
        self.titles = sorted([*self._paths, *self._texts])
        self.beside = _grouped(self.titles, lambda title: title.rpartition("/")[0])
        self.named = _grouped(self.titles, lambda title: title.rpartition("/")[2])
        self.text = lru_cache(HELD)(self._text)
        self.tokens = lru_cache(None)(lambda title: count(self.text(title)))
        self.fault = lru_cache(None)(self._fault)
        self.language = lru_cache(None)(lambda title: "en" if title.endswith(".py") else language_of(self.text(title)))

    def _text(self, title: str) -> str:
        """The text of a document; "" where it is not UTF-8. HTML without its markup."""
        if title in self._texts:
            return self._texts[title]
        try:
            text = self._paths[title].read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            return ""
        return plain(text) if self._paths[title].suffix in HTML else text

    def _fault(self, title: str) -> str:
        """Why a document is of no use, if so."""
        text = self.text(title)
        if not text or "\0" in text:
            return "document is no text"
        return "control tokens in the document" if any(token in text for token in CONTROL_TOKENS) else ""


def _grouped(titles: list[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Titles by their folder or by their file's name."""
    found: dict[str, list[str]] = {}
    for title in titles:
        found.setdefault(key(title), []).append(title)
    return found


def language_of(text: str) -> str:
    """The language of a text; "" for one that is none of the eight."""
    middle = max(0, (len(text) - IDENTIFIED) // 2)
    found = identify(text[middle : middle + IDENTIFIED])[0]
    return found if found in LANGUAGES else ""


def _of_records(source: Path) -> dict[str, str]:
    """Title → text of a file's records, or of those of a folder's files."""
    texts = {}
    for found in records(str(source)):
        text = found.record.get("text")
        if not isinstance(text, str):
            raise UserError(f"documents: {found.place} {found.reason or 'has no text'}; every record needs `text`")
        texts[str(found.record.get("title") or found.place)] = text.strip()
    if not texts:
        raise UserError(f"documents: {source} holds none; name {', '.join(SUFFIXES)} files, or records with `text`")
    return texts


def fence(text: str) -> str:
    """A line that stands before and after a text in a request, and not in it: no document can end its own quotation."""
    mark = f"===== {content_id('fence', text)} ====="
    assert mark not in text
    return mark


def plain(html: str) -> str:
    """The text of an HTML page: blocks on lines of their own, without scripts, styles and navigation."""
    reader = _Page()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skipped += tag in SKIPPED
        self.parts.append("\n" if tag in BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        self.skipped = max(0, self.skipped - (tag in SKIPPED))
        self.parts.append("\n\n" if tag in BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.parts.append(data)
