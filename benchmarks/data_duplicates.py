"""Near-duplicate removal: rows per second of `dedupe` against datasketch, over the same texts in one run.

Each takes the texts (word runs included), finds the near duplicates and says which rows go. A row is planted as a copy
of another with some words changed, so its true Jaccard similarity is known; recall is the share of the copies at or
above the threshold that go, and wrong are rows that go though nothing is that similar to them. datasketch is used as
its documentation shows (one update a run; query, then insert), with its own bands and with as many as `dedupe` takes,
which finds as much; and with its faster bulk call. CPU seconds of one process.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from harness import markdown, timed

from synth.curate.dedupe import Entry, bands, different, find_duplicates, jaccard
from synth.curate.dedupe_spec import DedupeConfig
from synth.curate.texts import shingles

VOCABULARY, WORDS, MOST_CHANGED = 20_000, 120, 14
SHARE_OF_COPIES = 0.2
CONFIG = DedupeConfig()
THRESHOLD = CONFIG.threshold or 0.0
BANDS = bands(THRESHOLD, CONFIG.permutations, CONFIG.recall)


@dataclass(frozen=True)
class Result:
    """What one way of doing it removed, in how many CPU seconds."""

    name: str
    seconds: float
    removed: set[str]


def make_rows(count: int, seed: int) -> tuple[list[Entry], dict[str, float]]:
    """Random texts of 120 words, then copies of some of them; of each copy its similarity with the original."""
    rng = random.Random(seed)
    originals = int(count * (1 - SHARE_OF_COPIES))
    texts = [[f"w{rng.randrange(VOCABULARY)}" for _ in range(WORDS)] for _ in range(originals)]
    similarity = {}
    for number, original in enumerate(rng.sample(range(originals), count - originals), originals):
        copy = list(texts[original])
        for place in rng.sample(range(WORDS), rng.randrange(1, MOST_CHANGED + 1)):
            copy[place] = f"w{rng.randrange(VOCABULARY)}"
        texts.append(copy)
        two = (different(shingles(" ".join(text), CONFIG.shingle)) for text in (copy, texts[original]))
        similarity[f"{number:08d}"] = jaccard(*two)
    return [Entry(f"{number:08d}", " ".join(text)) for number, text in enumerate(texts)], similarity


def ours(entries: list[Entry]) -> Iterator[str]:
    """The stage's own function."""
    yield from find_duplicates(lambda: entries, CONFIG)


def plainly(entries: list[Entry], params: tuple[int, int] | None) -> Iterator[str]:
    """As datasketch's documentation: a MinHash is updated with each run, the index is asked, then told."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=CONFIG.permutations, params=params)
    for entry in entries:
        signature = MinHash(num_perm=CONFIG.permutations)
        for run in set(shingles(entry.text, CONFIG.shingle)):
            signature.update(run.encode())
        if index.query(signature):
            yield entry.id
        else:
            index.insert(entry.id, signature)


def in_bulk(entries: list[Entry], params: tuple[int, int]) -> Iterator[str]:
    """With datasketch's call for many texts at once."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=CONFIG.permutations, params=params)
    runs = ([run.encode() for run in set(shingles(entry.text, CONFIG.shingle))] for entry in entries)
    signatures = MinHash.bulk(runs, num_perm=CONFIG.permutations)
    for entry, signature in zip(entries, signatures, strict=True):
        if index.query(signature):
            yield entry.id
        else:
            index.insert(entry.id, signature)


HEAD = ("", "CPU s", "rows/s", "ours is faster by", "recall", "wrong")


def summary(results: list[Result], rows: int, similarity: dict[str, float]) -> list[list[str]]:
    """A line a result: rows per second, ratio to ours, recall, and rows wrongly removed."""
    alike = {row for row, value in similarity.items() if value >= THRESHOLD}
    lines = []
    for result in results:
        speed, recall = rows / result.seconds, len(result.removed & alike) / len(alike)
        faster = result.seconds / results[0].seconds
        cells = [f"{result.seconds:.2f}", f"{speed:,.0f}", f"{faster:.1f}×", f"{recall:.4f}"]
        lines.append([result.name, *cells, str(len(result.removed - alike))])
    return lines


def section(count: int, seed: int) -> list[str]:
    entries, similarity = make_rows(count, seed)
    same_bands = (BANDS, CONFIG.permutations // BANDS)
    ways = (
        ("posttrain `dedupe`", ours, ()),
        ("datasketch, plainly, its own bands", plainly, (None,)),
        ("datasketch, plainly, the same bands", plainly, (same_bands,)),
        ("datasketch, bulk, the same bands", in_bulk, (same_bands,)),
    )
    results = []
    for name, remove, arguments in ways:
        seconds, removed = timed(lambda *given: set(given[0](*given[1:])), remove, entries, *arguments)
        results.append(Result(name, seconds, removed))
    about = (
        f"{count:,} texts of {WORDS} words, {SHARE_OF_COPIES:.0%} of them copies with 1 to {MOST_CHANGED} words "
        f"changed; runs of {CONFIG.shingle} words, {CONFIG.permutations} permutations, Jaccard threshold {THRESHOLD}, "
        f"{BANDS} bands. Recall is of the copies at or above the threshold; wrong counts removed rows that nothing is "
        "that similar to."
    )
    return [about, "", *markdown(HEAD, summary(results, count, similarity))]
