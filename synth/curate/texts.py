"""The texts of rows, prompts and pairs, and their words: what the rules, the hashes and the overlaps look at."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from posttrain.data.rows import Message, Pair, Prompt, Row, canonical_json
from synth.curate.wiring import Text

Item = Row | Prompt | Pair

CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`)", re.DOTALL)
"""Fenced and inline code, as one group so that `split` keeps it at the odd places."""
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
"""Thai, Lao, Japanese kana and Han: scripts without spaces between words."""
UNSPACED_LETTERS = 4
"""Of these scripts each run of so many characters counts as a word: what a Thai word has on average."""
_MARKS = "\u0300-\u036f\u0900-\u0963\u0966-\u0dff"
"""Combining accents and the Indic blocks, whose vowel signs are no word characters to `re`."""
_PUNCTUATION = r"\s.,;:!?'\"()\[\]{}¿¡«»“”„‘’–—…।॥、。，！？：；「」（）"
_WORD = re.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|(?:[^\W{_UNSPACED}]|[{_MARKS}])+|[^\w{_PUNCTUATION}{_MARKS}\ufe0f\u200d]"
)
_ASCII_WORD = re.compile(rf"\w+|[^\w{_PUNCTUATION}]")
"""The same for ASCII alone, several times as fast."""


def words(text: str) -> list[str]:
    """The words of a text: case-folded, NFKC; operators and other signs are words, punctuation and brackets are not."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return [word for word, _, _ in word_spans(unicodedata.normalize("NFKC", text))]


def word_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word of an NFKC text with the place where it begins and ends."""
    for match in _WORD.finditer(text):
        word, start, end = match.group(), match.start(), match.end()
        if match["unspaced"]:
            for left in range(start, max(start, end - UNSPACED_LETTERS) + 1):
                right = min(left + UNSPACED_LETTERS, end)
                yield text[left:right], left, right
        else:
            yield word.casefold(), start, end


def shingles(text: str, n: int) -> list[str]:
    """All runs of `n` words, repeats included; of a shorter text the one run of all its words."""
    found = words(text)
    if len(found) < n:
        return [" ".join(found)]
    return [" ".join(run) for run in zip(*(found[start:] for start in range(n)), strict=False)]


def prose(text: str) -> str:
    """The text without its code."""
    return CODE.sub(" ", text)


def said(message: Message) -> str:
    """A message as text: its content, then its calls as JSON."""
    calls = [canonical_json(call["function"]) for call in message.get("tool_calls") or []]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def text_of(item: Item, which: Text) -> str:
    """The prompt (all messages before the answer), the answer (of a pair both answers), or both, a line a message."""
    before, after = _parts(item)
    chosen = {"prompt": before, "answer": after, "both": (*before, *after)}[which]
    return "\n".join(map(said, chosen))


def _parts(item: Item) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    if isinstance(item, Pair):
        return item.prompt, (item.chosen, item.rejected)
    return (item.messages[:-1], item.messages[-1:]) if isinstance(item, Row) else (item.messages, ())


def answers(row: Row) -> list[Message]:
    """The assistant's messages."""
    return [message for message in row.messages if message["role"] == "assistant"]


def squeezed(text: str) -> str:
    """NFC with every run of white space as one space: texts that differ only there are the same."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def score_of(item: Any, name: str) -> float:
    """`reward`, `margin` or a numeric label of that name; minus infinity where the row has none."""
    value = getattr(item, name) if name in ("reward", "margin") and hasattr(item, name) else None
    if value is None:
        value = getattr(item, "labels", {}).get(name)
    return float(value) if isinstance(value, int | float) else float("-inf")
