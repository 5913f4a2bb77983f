"""Mixing rows by capability: shares by largest remainder, members by a seeded hash, so order does not matter."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from posttrain.data.mix_spec import MixConfig
from posttrain.data.rows import Row, content_id
from posttrain.data.shares import largest_remainder
from posttrain.data.tables import iter_table, write_table
from posttrain.errors import UserError
from posttrain.stages import Job


def run(job: Job) -> None:
    config: MixConfig = job.config
    there, duplicates = _by_capability(map(Path, job.inputs["rows"]))
    available = {capability: len(rows) for capability, rows in there.items()}
    weights = config.weights or {capability: float(count) for capability, count in available.items()}
    asked = asked_counts(weights, available, config.rows)
    taken = {capability: seeded(there.get(capability, []), job.seed)[:count] for capability, count in asked.items()}
    rows = seeded([row for members in taken.values() for row in members], job.seed)
    if not rows:
        raise UserError(
            f"the mix is empty: asked for {', '.join(sorted(weights)) or 'nothing'}, "
            f"and there are {available or 'no rows at all'}; change mix.weights or the stages before it"
        )
    job.rows["rows"] = write_table(job.folder, "rows", rows)
    job.summary["capabilities"] = {
        capability: {"available": available.get(capability, 0), "asked": count, "obtained": len(taken[capability])}
        for capability, count in asked.items()
    }
    job.summary["shortfall"] = sum(count - len(taken[capability]) for capability, count in asked.items())
    left_out = sum(count for capability, count in available.items() if capability not in asked)
    unused = sum(available.values()) - len(rows) - left_out
    job.summary["drops"] = {"duplicate": duplicates, "no weight": left_out, "beyond its share": unused}


def _by_capability(folders: Iterable[Path]) -> tuple[dict[str, list[Row]], int]:
    """The different rows of all folders by capability, and how many were there before."""
    seen: dict[str, Row] = {}
    read: Counter[str] = Counter()
    for folder in folders:
        for row in iter_table(folder, "rows"):
            seen.setdefault(row.id, row)
            read[row.id] += 1
    groups: dict[str, list[Row]] = {}
    for row in seen.values():
        groups.setdefault(row.capability, []).append(row)
    return dict(sorted(groups.items())), read.total() - len(seen)


def asked_counts(weights: Mapping[str, float], available: Mapping[str, int], rows: int) -> dict[str, int]:
    """Rows each weighted capability is asked for.

    With `rows` 0 the total is the largest at which no capability that has rows is asked for more than it has; one
    without rows does not hold the others back, its share is then a shortfall.
    """
    weights = {capability: weight for capability, weight in sorted(weights.items()) if weight > 0}
    whole = math.fsum(weights.values())
    limits = [available[c] * whole / weight for c, weight in weights.items() if available.get(c)]
    total = rows or math.floor(min(limits, default=0) + ROUNDING)
    return largest_remainder(weights, total) if weights else {}


ROUNDING = 1e-9
"""Keeps 3 × (1/3) from being 0.999… rows."""


def seeded(rows: Iterable[Row], seed: int) -> list[Row]:
    """The rows in an order that depends on the seed and their ids only; more rows of a kind extend what is chosen."""
    return sorted(rows, key=lambda row: content_id(seed, row.id))
