"""Whole numbers in given proportions."""

import math
from collections.abc import Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=str)


def largest_remainder(weights: Mapping[Name, float], total: int) -> dict[Name, int]:
    """Share out `total` by weight (Hamilton's method): floors first, what is left to the largest remainders.

    Equal remainders go by the order of the keys. Weights need not sum to 1; they must be ≥ 0 with a sum above 0.
    """
    whole = math.fsum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
