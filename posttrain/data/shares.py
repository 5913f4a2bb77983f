"""Whole numbers in given proportions."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

Name = TypeVar("Name", bound=str)


def exact(weight: float) -> Fraction:
    """A weight as it was written: 52.66 is 2633/50, not the float beside it."""
    return Fraction(repr(weight))


def largest_remainder(weights: Mapping[Name, float], total: int) -> dict[Name, int]:
    """Share out `total` by weight (Hamilton's method): floors first, what is left to the largest remainders.

    Equal remainders go by the order of the keys. Weights need not sum to 1; they must be ≥ 0 with a sum above 0.
    """
    whole = sum(map(exact, weights.values()))
    quotas = {name: total * exact(weight) / whole for name, weight in weights.items()}
    counts = {name: math.floor(value) for name, value in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def most_in_proportion(weights: Mapping[Name, float], limits: Mapping[Name, int]) -> int:
    """The largest total of which no name's share, by weight, is more than its limit; weights of 0 bind nothing."""
    whole = sum(map(exact, weights.values()))
    most = [math.floor(limits[name] * whole / exact(weight)) for name, weight in weights.items() if weight]
    return min(most, default=0)
