"""Which evaluation prompt a text repeats, by its words: as a whole message, or in runs of words.

P 5.2 asks for exact matches with the prompts of each benchmark; the overlap of word runs, and the share of the
evaluation example's words in such runs that makes it contaminated, are P 5.1.4's measure.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from posttrain.data.rows import Message, Pair, Prompt, Row, canonical_json

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


def said(message: Message) -> str:
    """A message as text: its content, then its calls as JSON."""
    calls = [canonical_json(call["function"]) for call in message.get("tool_calls") or []]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


Place = tuple[str, int]
"""An evaluation prompt's id and the place of a word in it."""


@dataclass
class Index:
    """The evaluation prompts by their words: whole messages, and where each run of `ngram` words stands."""

    ngram: int
    whole: dict[tuple[str, ...], str] = field(default_factory=dict)
    runs: dict[tuple[str, ...], list[Place]] = field(default_factory=dict)
    length: dict[str, int] = field(default_factory=dict)
    """Words of each prompt."""

    def add(self, prompt: Prompt) -> None:
        """Take in one prompt: each user message as a whole, and its runs."""
        start = 0
        for message in _user(prompt.messages):
            found = tuple(words(message["content"]))
            if found:
                self.whole.setdefault(found, prompt.id)
            for place, run in enumerate(runs_of(found, self.ngram), start):
                self.runs.setdefault(run, []).append((prompt.id, place))
            start += len(found)
        self.length[prompt.id] = start


@dataclass(frozen=True)
class Match:
    """The prompt that is repeated, the text that says so, and the share of its words; None where a message is equal."""

    prompt_id: str
    text: str
    share: float | None = None


def repeated(item: Row | Prompt | Pair, index: Index, least: float | None) -> Match | None:
    """The evaluation prompt that a row, prompt or pair repeats: a user message of it exactly, or with `least` that
    share of its words in runs, the largest share first."""
    messages = messages_of(item)
    for message in _user(messages):
        prompt_id = index.whole.get(tuple(words(message["content"])))
        if prompt_id is not None:
            return Match(prompt_id, message["content"])
    return None if least is None else _overlap(list(map(said, messages)), index, least)


def _overlap(texts: list[str], index: Index, least: float) -> Match | None:
    """The evaluation prompt with the largest share of its words in the texts, where that is large enough."""
    covered: dict[str, set[int]] = {}
    for text in texts:
        for run in set(runs_of(words(text), index.ngram)):
            for prompt_id, place in index.runs.get(run, ()):
                covered.setdefault(prompt_id, set()).update(range(place, place + index.ngram))
    shares = {prompt_id: len(places) / index.length[prompt_id] for prompt_id, places in covered.items()}
    prompt_id = max(shares, key=lambda one: (shares[one], one), default="")
    if not prompt_id or shares[prompt_id] < least:
        return None
    matched = max((longest_match(text, prompt_id, index) for text in texts), key=len)
    return Match(prompt_id, matched, shares[prompt_id])


def runs_of(found: Iterable[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` words; none of fewer words."""
    listed = list(found)
    return list(zip(*(listed[start:] for start in range(n)), strict=False))


def longest_match(text: str, prompt_id: str, index: Index) -> str:
    """The longest stretch of the text, as it is written, whose every run of words is one of the evaluation prompt's."""
    text = unicodedata.normalize("NFKC", text)
    spans = list(word_spans(text))
    begin, best = 0, (0, 0)
    inside = [_stands_in(run, prompt_id, index) for run in runs_of((word for word, _, _ in spans), index.ngram)]
    for place, matches in enumerate(inside):
        begin = begin if matches and place and inside[place - 1] else place
        stretch = (spans[begin][1], spans[place + index.ngram - 1][2])
        if matches and stretch[1] - stretch[0] > best[1] - best[0]:
            best = stretch
    return text[slice(*best)]


def _stands_in(run: tuple[str, ...], prompt_id: str, index: Index) -> bool:
    return any(found == prompt_id for found, _ in index.runs.get(run, ()))


def _user(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message["role"] == "user"]


def messages_of(item: Row | Prompt | Pair) -> tuple[Message, ...]:
    """All messages of a row, prompt or pair, of a pair both answers."""
    return (*item.prompt, *item.sides[0], *item.sides[1]) if isinstance(item, Pair) else item.messages
