"""How good a reward model is, on pairs it never saw. Plain numbers, no model.

A pair is right when the better answer has the higher reward; a tie is wrong.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import StatisticsError, correlation
from typing import Any

from posttrain.checks.intervals import wilson
from posttrain.data.rows import Pair

CALIBRATION_BINS = 5
"""Of equal width, over what the model may expect of its favourite's chance to win: 0.5 to 1."""
HISTOGRAM_EDGES = (-8.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
MATCHED = 0.1
"""Answers are of matched length when they differ by at most this share of the longer one."""


@dataclass(frozen=True)
class Measured:
    """A pair with its rewards and the tokens of its answers."""

    pair: Pair
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def gap(self) -> float:
        return self.chosen - self.rejected

    @property
    def right(self) -> bool:
        return self.gap > 0

    @property
    def matched(self) -> bool:
        longer = max(self.chosen_tokens, self.rejected_tokens)
        return abs(self.chosen_tokens - self.rejected_tokens) <= MATCHED * longer


def report(measured: Sequence[Measured]) -> dict[str, Any]:
    """Accuracy with its 95% interval overall and by group, calibration, the gaps' histogram, and length."""
    return {
        **accuracy(measured),
        "by_capability": _by(measured, lambda m: m.pair.capability),
        "by_language": _by(measured, lambda m: m.pair.language),
        "by_source": _by(measured, lambda m: m.pair.source or "none"),
        "by_rating": _by(measured, lambda m: m.pair.rating or "unrated"),
        "calibration": calibration([m.gap for m in measured]),
        "histogram": histogram([m.gap for m in measured]),
        "length": length(measured),
    }


def accuracy(measured: Sequence[Measured]) -> dict[str, Any]:
    """`n`, `correct`, `accuracy` and its Wilson interval `low` to `high`."""
    return asdict(wilson(sum(m.right for m in measured), len(measured)))


def _by(measured: Sequence[Measured], group: Callable[[Measured], str]) -> dict[str, dict[str, Any]]:
    names = sorted({group(m) for m in measured})
    return {name: accuracy([m for m in measured if group(m) == name]) for name in names}


def calibration(gaps: Sequence[float]) -> dict[str, Any]:
    """How often the answer of higher reward is the better one, against how often the model expects it to be.

    A gap expects sigmoid(|gap|). `bins` give n, the mean expectation and the observed share; `ece` is the mean
    distance of the two, weighted by n (expected calibration error).
    """
    expected = [1 / (1 + math.exp(-abs(gap))) for gap in gaps]
    places = [min(CALIBRATION_BINS - 1, int((p - 0.5) * 2 * CALIBRATION_BINS)) for p in expected]
    bins = []
    for number in range(CALIBRATION_BINS):
        own = [i for i, place in enumerate(places) if place == number]
        if own:
            mean = math.fsum(expected[i] for i in own) / len(own)
            observed = sum(gaps[i] > 0 for i in own) / len(own)
            bins.append({"n": len(own), "expected": mean, "observed": observed})
    ece = math.fsum(b["n"] * abs(b["expected"] - b["observed"]) for b in bins) / max(1, len(gaps))
    return {"ece": ece, "bins": bins}


def histogram(gaps: Sequence[float]) -> list[dict[str, Any]]:
    """Counts of the gaps, chosen minus rejected, from `low` to below `high`; None is no bound."""
    bounds = [None, *HISTOGRAM_EDGES, None]
    return [
        {
            "low": low,
            "high": high,
            "n": sum((low is None or gap >= low) and (high is None or gap < high) for gap in gaps),
        }
        for low, high in pairwise(bounds)
    ]


def length(measured: Sequence[Measured]) -> dict[str, Any]:
    """Whether reward is bought by length: Spearman's correlation over the answers, and accuracy by which is longer.

    `correlation` is None where all lengths or all rewards are equal.
    """
    longer = [m for m in measured if m.chosen_tokens > m.rejected_tokens]
    shorter = [m for m in measured if m.chosen_tokens < m.rejected_tokens]
    tokens = [float(n) for m in measured for n in (m.chosen_tokens, m.rejected_tokens)]
    rewards = [value for m in measured for value in (m.chosen, m.rejected)]
    return {
        "correlation": spearman(tokens, rewards),
        "matched": accuracy([m for m in measured if m.matched]),
        "better_longer": accuracy(longer),
        "better_shorter": accuracy(shorter),
    }


def spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """The correlation of ranks, equal values sharing their mean rank; None where one side does not vary."""
    try:
        return correlation(ranks(one), ranks(two))
    except StatisticsError:
        return None


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values have the mean of their ranks."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            found[place] = (start + 1 + end) / 2
        start = end
    return found
