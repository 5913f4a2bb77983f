"""Semantic duplicates (Llama 3, 4.2.3): cluster the encoded rows, sort each cluster by quality × difficulty, and keep a
row only if its cosine similarity to all rows kept so far in the cluster is below a threshold.

Letters in shapes: N rows, D numbers of a vector, K clusters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.stages import Job
from synth.curate.encode import Encoder
from synth.curate.semantic_dedupe_spec import SemanticDedupeConfig
from synth.curate.table import Drop, items, sift
from synth.curate.texts import score_of, text_of

STEPS = 20
"""Of k-means at most; it ends when no row changes its cluster."""


@dataclass(frozen=True)
class Entry:
    """A row's id, the text that is encoded, and its scores by the names of the recipe's `order`."""

    id: str
    text: str
    scores: tuple[float, ...]


def run(job: Job) -> None:
    """Write `rows` without semantic duplicates, and `rejects` that name the row each one repeats."""
    config: SemanticDedupeConfig = job.config
    entries = sorted((_entry(row, config) for row in items(job)), key=lambda entry: entry.id)
    found = _duplicates(job, entries) if entries else {}
    sift(job, lambda row: found.get(row.id, row))


def _entry(row: Row, config: SemanticDedupeConfig) -> Entry:
    return Entry(row.id, text_of(row, config.text), tuple(score_of(row, name) for name in config.order))


def _duplicates(job: Job, entries: list[Entry]) -> dict[str, Drop]:
    config: SemanticDedupeConfig = job.config
    encoder = Encoder(str(job.inputs["encoder"]), job.machine)
    vectors_ND = encoder.encode(
        [entry.text for entry in entries], config.max_tokens, config.batch_size,
        lambda done: job.progress(done, len(entries), "rows"),
    )  # fmt: skip
    clusters_N = cluster(vectors_ND, math.ceil(len(entries) / config.cluster_rows), job.seed)
    worth = products([entry.scores for entry in entries])
    found: dict[str, Drop] = {}
    for number in range(int(clusters_N.max()) + 1):
        members: list[int] = (clusters_N == number).nonzero().flatten().tolist()
        members.sort(key=lambda place: (-worth[place], entries[place].id))
        for place, (twin, cosine) in thin(vectors_ND[members], config.threshold).items():
            detail = {"of": entries[members[twin]].id, "cosine": round(cosine, 4), "cluster": number}
            found[entries[members[place]].id] = Drop("semantic duplicate", detail=detail)
    job.summary["clusters"] = int(clusters_N.unique().numel())
    return found


def products(scores: list[tuple[float, ...]]) -> list[float]:
    """Each row's product of its scores; of those that no row has nothing enters, and a row that lacks one is lowest."""
    known = [place for place in range(len(scores[0])) if any(math.isfinite(row[place]) for row in scores)]
    chosen = [[row[place] for place in known] for row in scores]
    return [math.prod(row) if all(map(math.isfinite, row)) else -math.inf for row in chosen]


def cluster(vectors_ND: Tensor, count: int, seed: int) -> Tensor:
    """Spherical k-means of unit vectors: the cluster of each, [N]. It starts from `count` of them, drawn by seed."""
    if count <= 1:
        return torch.zeros(len(vectors_ND), dtype=torch.long)
    drawn = torch.randperm(len(vectors_ND), generator=torch.Generator().manual_seed(seed))[:count]
    centres_KD = vectors_ND[drawn]
    nearest_N = torch.full((len(vectors_ND),), -1)
    for _ in range(STEPS):
        before_N, nearest_N = nearest_N, (vectors_ND @ centres_KD.T).argmax(1)
        if torch.equal(before_N, nearest_N):
            break
        sums_KD = torch.zeros_like(centres_KD).index_add_(0, nearest_N, vectors_ND)
        empty_K1 = (torch.bincount(nearest_N, minlength=count) == 0)[:, None]
        centres_KD = torch.where(empty_K1, centres_KD, torch.nn.functional.normalize(sums_KD, dim=-1))
    return nearest_N


def thin(vectors_ND: Tensor, threshold: float) -> dict[int, tuple[int, float]]:
    """Of vectors in the order in which they are wanted: the place of each that goes, with its nearest kept one."""
    highest_N = torch.full((len(vectors_ND),), -math.inf)
    nearest_N = torch.zeros(len(vectors_ND), dtype=torch.long)
    gone: dict[int, tuple[int, float]] = {}
    for place, vector_D in enumerate(vectors_ND):
        if highest_N[place] >= threshold:
            gone[place] = (int(nearest_N[place]), float(highest_N[place]))
            continue
        cosine_N = vectors_ND @ vector_D
        nearest_N = torch.where(cosine_N > highest_N, place, nearest_N)
        highest_N = torch.maximum(highest_N, cosine_N)
    return gone
