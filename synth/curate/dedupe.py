"""Exact and near duplicates: MinHash signatures in banded buckets (rensa), then the true Jaccard similarity decides.

Texts are taken best first; one is left out when a text kept before it is as similar as the threshold. So what is kept
does not depend on the order of the input, and a chain of small changes is not followed to its end.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from posttrain.errors import UserError
from posttrain.stages import Job
from synth.curate.dedupe_spec import DedupeConfig
from synth.curate.table import Drop, items, sift
from synth.curate.texts import score_of, shingles, squeezed, text_of

try:
    from rensa import RMinHash, RMinHashLSH
except ImportError as error:
    raise UserError("near duplicates are found with rensa: pip install 'posttrain[curation]'") from error

HASH_SEED = 1
"""Of the MinHash permutations: a constant, so that a text's signature is the same in every run."""

Rank = tuple[float, str]
"""Minus the score, then the id: of two like texts the smaller one stays."""
Runs = frozenset[int]
"""A text's different word runs, hashed."""


@dataclass(frozen=True)
class Entry:
    """One text with the id of its row; of two like texts the one of the higher score stays."""

    id: str
    text: str
    score: float = 0.0

    @property
    def rank(self) -> Rank:
        return -self.score, self.id


@dataclass(frozen=True)
class Alike:
    """A text that shares a bucket with another one."""

    rank: Rank
    runs: Runs
    signature: RMinHash


def run(job: Job) -> None:
    """Write the table without its duplicates, and `rejects` that name the row each one repeats."""
    config: DedupeConfig = job.config

    def read() -> Iterator[Entry]:
        for item in items(job, config.over):
            score = score_of(item, config.keep) if config.keep else 0.0
            yield Entry(item.id, text_of(item, config.text), score)

    found = find_duplicates(read, config)
    sift(job, lambda item: found.get(item.id, item), config.over)


def find_duplicates(read: Callable[[], Iterable[Entry]], config: DedupeConfig) -> dict[str, Drop]:
    """Id → why it is left out.

    `read` is called twice, so that of a text without a twin only its signature and hash are held in memory.
    """
    best: dict[bytes, Rank] = {}
    text_of_id: dict[str, bytes] = {}
    new_texts = _different(read(), best, text_of_id)
    if config.threshold is None:
        deque(new_texts, maxlen=0)
        return _exact(best, text_of_id)
    runs = (shingles(text, config.shingle) for text in new_texts)
    signatures = RMinHash.digest_matrix_from_token_sets(runs, config.permutations, HASH_SEED)
    flags = _index(config).query_duplicate_flags_matrix_one_shot(signatures)
    flagged = {rank[1]: rank for rank, flag in zip(best.values(), flags, strict=True) if flag}
    alike = [_alike(entry, flagged[entry.id], config) for entry in read() if entry.id in flagged]
    return _exact(best, text_of_id) | _near(alike, config)


def _different(entries: Iterable[Entry], best: dict[bytes, Rank], text_of_id: dict[str, bytes]) -> Iterator[str]:
    """The texts that differ by more than white space, as they first come.

    On the way it notes each entry's hash in `text_of_id`, and by hash, in the order of the texts, the rank of the best
    entry in `best`.
    """
    for entry in entries:
        key = hashlib.blake2b(squeezed(entry.text).encode(), digest_size=16).digest()
        text_of_id[entry.id] = key
        known = best.get(key)
        best[key] = entry.rank if known is None else min(known, entry.rank)
        if known is None:
            yield entry.text


def _exact(best: dict[bytes, Rank], text_of_id: dict[str, bytes]) -> dict[str, Drop]:
    return {
        entry_id: Drop("exact duplicate", detail={"of": best[key][1]})
        for entry_id, key in text_of_id.items()
        if best[key][1] != entry_id
    }


def _alike(entry: Entry, rank: Rank, config: DedupeConfig) -> Alike:
    found = shingles(entry.text, config.shingle)
    (signature,) = RMinHash.from_token_sets([found], config.permutations, HASH_SEED)
    return Alike(rank, different(found), signature)


def bands(threshold: float, permutations: int, recall: float) -> int:
    """The fewest bands with which two texts at the threshold share a bucket with at least this probability.

    Signatures of similarity s agree in one band of r numbers with s^r, and in some of b bands with 1 − (1 − s^r)^b.
    """
    fitting = [b for b in range(1, permutations + 1) if permutations % b == 0]
    return next((b for b in fitting if 1 - (1 - threshold ** (permutations // b)) ** b >= recall), permutations)


def _index(config: DedupeConfig) -> RMinHashLSH:
    assert config.threshold is not None
    count = bands(config.threshold, config.permutations, config.recall)
    return RMinHashLSH(config.threshold, config.permutations, count)


def different(runs: list[str]) -> Runs:
    """The different runs among those of a text."""
    return frozenset(map(hash, runs))


def jaccard(one: Runs, other: Runs) -> float:
    """Size of the intersection over size of the union; both are never empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _near(alike: list[Alike], config: DedupeConfig) -> dict[str, Drop]:
    """Best first: what is too similar to a text kept before it."""
    index, kept = _index(config), list[Alike]()
    found: dict[str, Drop] = {}
    for own in sorted(alike, key=lambda one: one.rank):
        others = ((jaccard(own.runs, kept[place].runs), place) for place in index.query(own.signature))
        similarity, place = max(others, key=lambda two: (two[0], -two[1]), default=(0.0, 0))
        if config.threshold is not None and similarity >= config.threshold:
            detail = {"of": kept[place].rank[1], "jaccard": round(similarity, 4)}
            found[own.rank[1]] = Drop("near duplicate", detail=detail)
        else:
            index.insert(len(kept), own.signature)
            kept.append(own)
    return found
