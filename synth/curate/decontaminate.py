"""Rows that repeat an evaluation prompt are left out, with the prompt's id and the text they share.

P 5.2 asks for exact matches with the prompts of each benchmark; the overlap of word runs, and the share of the
evaluation example's words in such runs that makes it contaminated, are P 5.1.4's measure.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.data.rows import Message, Pair, Prompt, Row
from posttrain.data.tables import iter_table
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.curate.decontaminate_spec import DecontaminateConfig
from synth.curate.table import Drop, sift
from synth.curate.texts import said, word_spans, words

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


def run(job: Job) -> None:
    """Write the table without what is contaminated, and `rejects` with the text found; count the prompts found."""
    config: DecontaminateConfig = job.config
    index, capability = Index(config.ngram), dict[str, str]()
    for folder in job.inputs["eval_prompts"]:
        for prompt in iter_table(Path(folder), "prompts"):
            if prompt.id not in capability:
                capability[prompt.id] = prompt.capability
                index.add(prompt)
    if not capability:
        raise UserError(f"{job.name}: the evaluation prompts are empty, so nothing can be compared with them")
    hit: Counter[str] = Counter()

    def decide(item: Any) -> Any:
        drop = contamination(item, index, config.overlap)
        if drop is not None:
            hit[drop.detail["eval_prompt"]] += 1
        return drop or item

    sift(job, decide, config.over)
    job.summary["eval_prompts"] = {"compared": len(capability), "found": len(hit)}
    found = Counter(capability[prompt_id] for prompt_id in hit)
    job.summary["eval_prompts_found_by_capability"] = dict(sorted(found.items()))


def contamination(item: Row | Prompt | Pair, index: Index, overlap: float | None) -> Drop | None:
    """The evaluation prompt that a row, prompt or pair repeats, exactly or in its word runs, or None."""
    messages = _messages(item)
    for message in _user(messages):
        prompt_id = index.whole.get(tuple(words(message["content"])))
        if prompt_id is not None:
            return Drop("equals an eval prompt", message["content"], {"eval_prompt": prompt_id})
    return None if overlap is None else _overlap(list(map(said, messages)), index, overlap)


def _overlap(texts: list[str], index: Index, least: float) -> Drop | None:
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
    return Drop("overlaps an eval prompt", matched, {"eval_prompt": prompt_id, "overlap": round(shares[prompt_id], 4)})


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


def _messages(item: Row | Prompt | Pair) -> tuple[Message, ...]:
    return (*item.prompt, item.chosen, item.rejected) if isinstance(item, Pair) else item.messages
