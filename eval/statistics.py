"""What a number is worth: intervals of means, paired tests, corrections, and how many prompts a difference needs.

Grades lie between 0 and 1. Prompts that share a source (one problem in eight languages) are not independent: `clusters`
names the source of each, and they are counted and drawn together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from posttrain.checks.intervals import Change, Rate, Z, paired_difference, wilson

DRAWS = 2000
"""Of the bootstrap and of the sign-flip test."""
SEED = 20_240_731
Clusters = Sequence[str] | None


def rate(values: Sequence[float], clusters: Clusters = None) -> Rate:
    """The mean of grades with a 95% interval.

    Grades of 0 and 1 have Wilson's, which in clusters is that of the effective number of prompts (Korn and Graubard
    1998: n over the design effect); other grades have the bootstrap's percentiles, clusters drawn whole.
    """
    n, total = len(values), math.fsum(values)
    if n == 0 or (_binary(values) and not _shared(clusters)):
        return wilson(total, n)
    if _binary(values):
        size = effective_n(values, clusters)
        found = wilson(total / n * size, size)
        return replace(found, n=n, correct=total)
    low, high = bootstrap(values, clusters)
    return Rate(n, total, total / n, low, high)


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _shared(clusters: Clusters) -> bool:
    return clusters is not None and len(set(clusters)) < len(clusters)


def llama_half_width(share: float, n: int) -> float:
    """1.96 · sqrt(S · (1 − S) / N): half the interval that Llama 3 reports (P 5.1.1)."""
    return 1.96 * math.sqrt(share * (1 - share) / n) if n else 0.0


def effective_n(values: Sequence[float], clusters: Clusters) -> int:
    """How many independent prompts would tell as much: n over the design effect, at most n, at least 1. Where all
    grades are equal no effect can be seen, and each cluster counts as one."""
    n = len(values)
    sums = _by_cluster(values, clusters)
    mean = math.fsum(values) / n
    spread = mean * (1 - mean)
    if spread == 0 or len(sums) < 2:
        return max(1, len(sums))
    variance = _cluster_variance(sums, mean, n)
    return max(1, min(n, round(spread / variance))) if variance else n


def _by_cluster(values: Sequence[float], clusters: Clusters) -> list[tuple[float, int]]:
    """Sum and number of the values of each cluster; every value alone where there are none."""
    if clusters is None:
        return [(value, 1) for value in values]
    found: dict[str, tuple[float, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total, count = found.get(cluster, (0.0, 0))
        found[cluster] = (total + value, count + 1)
    return list(found.values())


def _cluster_variance(sums: Sequence[tuple[float, int]], mean: float, n: int) -> float:
    """The sandwich variance of a mean over clusters (Cameron and Miller 2015), with the factor C / (C − 1)."""
    count = len(sums)
    return count / (count - 1) * math.fsum((total - size * mean) ** 2 for total, size in sums) / n**2


def bootstrap(values: Sequence[float], clusters: Clusters = None, draws: int = DRAWS) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the mean over resampled clusters, from a fixed seed."""
    sums = np.array(_by_cluster(values, clusters), dtype=float)
    rng = np.random.default_rng(SEED)
    means = []
    for _ in range(draws):
        total, size = sums[rng.integers(0, len(sums), len(sums))].sum(0)
        means.append(total / size)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_change(before: Sequence[float], after: Sequence[float], clusters: Clusters = None, z: float = Z) -> Change:
    """The mean change with its interval, `z` standard errors to each side; in clusters the wider of that and the
    interval from the clusters' own variance."""
    plain = paired_difference(before, after, z)
    if not _shared(clusters) or len(set(clusters or ())) < 2:
        return plain
    gains = [new - old for old, new in zip(before, after, strict=True)]
    mean = math.fsum(gains) / len(gains)
    half = z * math.sqrt(_cluster_variance(_by_cluster(gains, clusters), mean, len(gains)))
    low, high = min(plain.low, max(-1.0, mean - half)), max(plain.high, min(1.0, mean + half))
    return Change(plain.n, mean, low, high, low > 0 or high < 0)


def mcnemar(before: Sequence[float], after: Sequence[float]) -> float:
    """The exact two-sided p of McNemar's test on grades of 0 and 1: the pairs that differ are as tosses of a coin."""
    gained = sum(new > old for old, new in zip(before, after, strict=True))
    lost = sum(new < old for old, new in zip(before, after, strict=True))
    tosses, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**tosses)


def sign_flip(before: Sequence[float], after: Sequence[float], clusters: Clusters = None, draws: int = DRAWS) -> float:
    """The two-sided p of the paired permutation test: where nothing has changed, each cluster's change is as likely to
    have the other sign."""
    gains = [new - old for old, new in zip(before, after, strict=True)]
    sums = np.array([total for total, _ in _by_cluster(gains, clusters) if total], dtype=float)
    if not len(sums):
        return 1.0
    flips = np.random.default_rng(SEED).integers(0, 2, (draws, len(sums))) * 2 - 1
    as_far = np.abs(flips @ sums) >= abs(sums.sum()) - 1e-12
    return float((1 + as_far.sum()) / (1 + draws))


def paired_p(before: Sequence[float], after: Sequence[float], clusters: Clusters = None) -> float:
    """McNemar's exact test where grades are 0 and 1 and no source is shared, else the sign-flip test; 1 of no pairs."""
    if not before:
        return 1.0
    if _binary([*before, *after]) and not _shared(clusters):
        return mcnemar(before, after)
    return sign_flip(before, after, clusters)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p as it stands when all are tested at once (Holm 1979): below 0.05 it may be claimed among the others."""
    adjusted, least = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def needed_n(difference: float, differing: float, power: float = 0.8, level: float = 0.05) -> int:
    """Prompts that a paired comparison needs to find a difference of accuracy (0.02 is two points) with this power at
    this two-sided level, when the two models differ on a share `differing` of prompts (Connor 1987)."""
    if not 0 < abs(difference) <= differing <= 1:
        raise ValueError(f"a difference of {difference} cannot come of {differing} of prompts that differ")
    normal = NormalDist()
    spread = math.sqrt(differing - difference**2)
    reach = normal.inv_cdf(1 - level / 2) * math.sqrt(differing) + normal.inv_cdf(power) * spread
    return math.ceil((reach / difference) ** 2)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k): the chance that one of k answers drawn from n passes (arXiv 2107.03374)."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} answers")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def even_length_win_rate(wins: Sequence[float], longer: Sequence[float]) -> float:
    """The win rate at equal length: a logistic regression of `wins` (1, 0, or 0.5 for a tie) on the tanh of the
    standardised differences of length, read at 0 (the length term of arXiv 2404.04475), by Newton's method with a
    slight ridge, so that a side that always wins has an estimate."""
    if not wins:
        return 0.5
    won, extra = np.array(wins, dtype=float), np.array(longer, dtype=float)
    spread = extra.std()
    length = np.tanh(extra / spread) if spread else np.zeros_like(extra)
    x_BF = np.stack([np.ones_like(length), length], 1)
    weights, ridge = np.zeros(2), 1e-2 * np.eye(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x_BF @ weights))
        slope = x_BF.T @ (won - p) - ridge @ weights
        weights = weights + np.linalg.solve(x_BF.T @ (x_BF * (p * (1 - p))[:, None]) + ridge, slope)
    return float(1 / (1 + np.exp(-weights[0])))
