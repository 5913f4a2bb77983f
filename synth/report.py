"""What a synthesis stage says of itself: `report.json`, a line for each capability, and what a clock and a price tell.

Seconds and money stand in the manifest's summary alone, so that equal rows make equal artifacts.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from posttrain.data.overlap import runs_of, words
from posttrain.data.rows import Row, content_id
from posttrain.stages import Job
from synth.operators.bill import Tally
from synth.operators.items import Made
from synth.operators.work import Work

REPORT = "report.json"
ANSWERS = "answers"
"""The step in which the teacher answers a share of the prompts."""
SAMPLES = 10
SAMPLE_CHARACTERS = (400, 200)
"""Of a sample's prompt and answer: what is shown of its beginning and, of a longer one, of its end."""
NGRAMS = (1, 2, 3)
MOST_CLUSTERED = 2_000
"""Prompts that are clustered at most, chosen by a seeded hash."""
CLUSTER_TEXTS = 8
MOST_CLUSTERS = 32
"""A cluster for every eight prompts, but no more than this."""
HASHED = 512
"""Numbers of the vector that a text's words are hashed to."""
STEPS = 10
"""Of k-means."""
TENTHS = 10
MAIN_REASONS = 4
"""Reasons of drops that the line of a capability names."""


def write_report(job: Job, works: list[Work], answers: list[Row]) -> None:
    """Write `report.json`, log a line for each capability, and leave seconds, tokens and money in the summary."""
    found = {work.capability: _of(work) for work in works}
    text = json.dumps({"capabilities": found, "answers": len(answers)}, indent=1, ensure_ascii=False)
    (job.folder / REPORT).write_text(text + "\n", encoding="utf-8")
    job.summary["spent"] = {work.capability: _spent_by_language(work) for work in works}
    job.summary["told"] = [line(work, found[work.capability]) for work in works]
    for told in job.summary["told"]:
        job.log.info("%s", told)


def _of(work: Work) -> dict[str, Any]:
    made = sorted(work.made.values(), key=lambda one: content_id(work.job.seed, one.id))
    languages = sorted({language for _, language in work.tallies})
    return {
        "wanted": work.config.rows,
        **_counts(work, [tally for _, tally in work.tallies.items()], made),
        "answered": sum(tally.left for tally in _tallies(work, step=ANSWERS)),
        "stopped": work.stopped,
        "languages": {
            name: _of_language(work, name, [one for one in made if one.language == name]) for name in languages
        },
        "steps": {name: _step(_tallies(work, step=name)) for name in dict.fromkeys(step for step, _ in work.tallies)},
        "diversity": _diversity(work, made),
        **labels([row for one in made for row in one.rows]),
        "made_before": sum(one.id in work.earlier for one in made),
        "samples": [_sample(one) for one in made[:SAMPLES]],
    }


def _tallies(work: Work, step: str | None = None, language: str | None = None) -> list[Tally]:
    return [
        tally
        for (own_step, own_language), tally in work.tallies.items()
        if step in (None, own_step) and language in (None, own_language)
    ]


def _counts(work: Work, tallies: Sequence[Tally], made: Sequence[Made]) -> dict[str, Any]:
    """Texts asked of models, what passed all checks, what was kept of it, and why the rest was not."""
    reasons: Counter[str] = Counter()
    for tally in tallies:
        reasons.update(tally.reasons)
    return {
        "asked": sum(tally.asked for tally in tallies), "made": len(made) + reasons["surplus"], "kept": len(made),
        "rows": sum(len(one.rows) for one in made), "pairs": sum(len(one.pairs) for one in made),
        "tokens": sum(tally.tokens for tally in tallies), "reasons": dict(sorted((+reasons).items())),
    }  # fmt: skip


def _of_language(work: Work, language: str, made: Sequence[Made]) -> dict[str, Any]:
    return {**_counts(work, _tallies(work, language=language), made), "diversity": _diversity(work, made)}


def _diversity(work: Work, made: Sequence[Made]) -> dict[str, float]:
    texts = [one.text for one in made]
    return {**distinct(texts), **clusters(texts[:MOST_CLUSTERED], work.job.seed)}


def _step(tallies: Sequence[Tally]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for tally in tallies:
        reasons.update(tally.reasons)
    return {
        "asked": sum(tally.asked for tally in tallies), "came": sum(tally.came for tally in tallies),
        "left": sum(tally.left for tally in tallies), "tokens": sum(tally.tokens for tally in tallies),
        "reasons": dict(sorted(reasons.items())),
    }  # fmt: skip


def _spent_by_language(work: Work) -> dict[str, Any]:
    languages = sorted({language for _, language in work.tallies})
    return {
        **_spent(work.tallies.values()),
        "languages": {name: _spent(_tallies(work, language=name)) for name in languages},
    }


def _spent(tallies: Iterable[Tally]) -> dict[str, float]:
    """Seconds of asking, tokens read (where a server tells) and written, and money, in the currency of the price."""
    listed = list(tallies)
    return {
        "seconds": round(sum(tally.seconds for tally in listed), 3),
        "read": round(sum(tally.read for tally in listed)),
        "tokens": sum(tally.tokens for tally in listed),
        "cost": sum(tally.cost for tally in listed),
    }


def distinct(texts: Sequence[str]) -> dict[str, float]:
    """The share of different ones among all runs of n words, n of 1 to 3 (distinct-n: Li et al. 2016, 1510.03055)."""
    found = {}
    for n in NGRAMS:
        runs = [run for text in texts for run in runs_of(words(text), n)]
        found[f"distinct_{n}"] = round(len(set(runs)) / len(runs), 4) if runs else 0.0
    return found


def clusters(texts: Sequence[str], seed: int) -> dict[str, float]:
    """How evenly the texts fill clusters of like words: `effective` is how many clusters of equal size are as even
    (the exponential of the entropy of their sizes), `largest` the share of texts in the largest."""
    count = min(MOST_CLUSTERS, len(texts) // CLUSTER_TEXTS)
    if count < 2:
        return {"clusters": count}
    sizes = np.bincount(_nearest(_vectors(texts), count, seed), minlength=count)
    shares = sizes[sizes > 0] / len(texts)
    effective = math.exp(-float((shares * np.log(shares)).sum()))
    return {"clusters": count, "effective": round(effective, 2), "largest": round(float(shares.max()), 3)}


def _vectors(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors [N, HASHED] of the texts' words, each word weighted by how few of the texts have it."""
    bags = [{int(content_id(word), 16) % HASHED for word in words(text)} for text in texts]
    found = np.zeros((len(texts), HASHED))
    for place, bag in enumerate(bags):
        found[place, sorted(bag)] = 1.0
    found *= np.log((1 + len(texts)) / (1 + found.sum(0)))
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def _nearest(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Spherical k-means: the cluster of each text, [N]."""
    centres = vectors[np.random.default_rng(seed).choice(len(vectors), count, replace=False)]
    for _ in range(STEPS):
        nearest = (vectors @ centres.T).argmax(1)
        sums = np.stack([vectors[nearest == place].sum(0) for place in range(count)])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-9), centres)
    return nearest


def labels(rows: Sequence[Row]) -> dict[str, Any]:
    """How the rows' labels are spread: of texts and whole numbers how often each stands, of other numbers their mean
    and, from 0 to 1, how many lie in each tenth. Nothing where there are none."""
    found: dict[str, Any] = {}
    for name in sorted({name for row in rows for name in row.labels}):
        values = [row.labels[name] for row in rows if name in row.labels]
        if all(isinstance(value, float) for value in values):
            found[name] = {"mean": round(sum(values) / len(values), 4)}
            if all(0 <= value <= 1 for value in values):
                tenths = Counter(min(TENTHS - 1, int(TENTHS * value)) for value in values)
                found[name]["tenths"] = [tenths[place] for place in range(TENTHS)]
        elif all(isinstance(value, str | int) for value in values):
            found[name] = {str(value): count for value, count in sorted(Counter(values).items())}
    return {"labels": found} if found else {}


def _sample(made: Made) -> dict[str, Any]:
    """Enough of it to be judged by eye."""
    rows = [message for row in made.rows[:1] for message in row.messages[-1:]]
    return {
        "id": made.id, "language": made.language, "prompt": _shown(made.text),
        "answer": _shown(str(rows[0].get("content") or rows[0].get("tool_calls"))) if rows else None,
        "check": made.prompt.check.name if made.prompt and made.prompt.check else None, "pairs": len(made.pairs),
    }  # fmt: skip


def _shown(text: str) -> str:
    head, tail = SAMPLE_CHARACTERS
    return text if len(text) <= head + tail else f"{text[:head]} … {text[-tail:]}"


def line(work: Work, found: dict[str, Any]) -> str:
    """A capability in one line, for the screen and the log."""
    reasons = sorted(found["reasons"].items(), key=lambda item: (-item[1], item[0]))[:MAIN_REASONS]
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    cost = sum(tally.cost for tally in work.tallies.values())
    parts = [
        f"{work.capability}: {found['kept']:,} of {found['wanted']:,} kept, {found['asked']:,} texts asked",
        f"dropped {dropped}" if dropped else "",
        f"distinct pairs of words {found['diversity']['distinct_2']:.2f}",
        f"{found['made_before']:,} made before" if found["made_before"] else "",
        f"cost {cost:.4g}" if cost else "",
    ]
    return " · ".join(part for part in parts if part)
