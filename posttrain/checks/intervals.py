"""Intervals that every claim of a gain rests on. All are 95%, two-sided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


@dataclass(frozen=True)
class Rate:
    """`correct` of `n` as a share with its interval; the share of nothing is 0 with the interval 0 to 1."""

    n: int
    correct: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """The mean of after − before over `n` pairs, its interval, and whether that leaves zero out."""

    n: int
    change: float
    low: float
    high: float
    significant: bool


def wilson(correct: float, n: int) -> Rate:
    """The Wilson score interval of a proportion (Wilson 1927); `correct` may be a sum of grades between 0 and 1."""
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n}")
    if n == 0:
        return Rate(0, 0.0, 0.0, 0.0, 1.0)
    share, spread = correct / n, Z * Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return Rate(n, correct, share, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(before: Sequence[float], after: Sequence[float], z: float = Z) -> Change:
    """The change from `before` to `after`, one grade (0 to 1) each for the same prompts in the same order; `z` standard
    errors to each side make the interval.

    The interval is Wald's with two pseudo-pairs added, one that gained a whole grade and one that lost it; for grades
    of 0 and 1 that is the adjusted interval of Bonett and Price (2012) for paired proportions, which keeps its coverage
    in small samples and has a width when no pair differs.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} grades before, {len(after)} after")
    if not before:
        return Change(0, 0.0, -1.0, 1.0, False)
    gains = [new - old for old, new in zip(before, after, strict=True)]
    total, n = math.fsum(gains), len(gains)
    centre = total / (n + 2)
    variance = (math.fsum(gain * gain for gain in gains) + 2) / (n + 2) - centre * centre
    half = z * math.sqrt(variance / (n + 2))
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Change(n, total / n, low, high, low > 0 or high < 0)
