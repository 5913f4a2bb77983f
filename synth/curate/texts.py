"""The texts of rows, prompts and pairs, and their words: what the rules, the hashes and the overlaps look at."""

import re
import unicodedata
from typing import Any

from posttrain.data.overlap import said, words
from posttrain.data.rows import Message, Pair, Prompt, Row
from synth.curate.wiring import Text

Item = Row | Prompt | Pair

CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`)", re.DOTALL)
"""Fenced and inline code, as one group so that `split` keeps it at the odd places."""


def shingles(text: str, n: int) -> list[str]:
    """All runs of `n` words, repeats included; of a shorter text the one run of all its words."""
    found = words(text)
    if len(found) < n:
        return [" ".join(found)]
    return [" ".join(run) for run in zip(*(found[start:] for start in range(n)), strict=False)]


def prose(text: str) -> str:
    """The text without its code."""
    return CODE.sub(" ", text)


def text_of(item: Item, which: Text) -> str:
    """The prompt (all messages before the answer), the answer (of a pair both answers), or both, a line a message."""
    before, after = _parts(item)
    chosen = {"prompt": before, "answer": after, "both": (*before, *after)}[which]
    return "\n".join(map(said, chosen))


def _parts(item: Item) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    if isinstance(item, Pair):
        return item.prompt, (*item.sides[0], *item.sides[1])
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
