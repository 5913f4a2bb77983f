"""What choosing the best of n brings, estimated from K answers a prompt. Plain numbers, no model."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from reward.scorers import Values


def best_of_n(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """The expected value of the answer with the highest score among `n` drawn without replacement from all K.

    Unbiased: the answer of rank i (from 0) is the best of C(K-1-i, n-1) of the C(K, n) draws. Answers of equal score
    share their chances. Raises ValueError unless 1 <= n <= K.
    """
    total = len(scores)
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} from {total}")
    expected, rank = 0.0, 0
    ranked = sorted(range(total), key=lambda i: -scores[i])
    for _, group in groupby(ranked, key=lambda i: scores[i]):
        tied = list(group)
        chance = sum(math.comb(total - 1 - i, n - 1) for i in range(rank, rank + len(tied))) / math.comb(total, n)
        expected += chance * math.fsum(values[i] for i in tied) / len(tied)
        rank += len(tied)
    return expected


def kl_bound(n: int) -> float:
    """log n - (n-1)/n: what best-of-n may move from the policy at most, in nats (Beirami et al. 2024, 2401.01879)."""
    return math.log(n) - (n - 1) / n


def kl_estimate(scores: Sequence[float], n: int) -> float:
    """How far best-of-n moves from the policy, in nats, as far as K samples tell: at most `kl_bound`.

    The K samples stand for the policy; of n draws from them, with replacement, the best has score rank i with
    probability F_i^n − F_{i−1}^n, where F is the share of samples of that score or less. Answers of equal score are
    taken for equal, so a policy that repeats itself moves less than the bound says.
    """
    total, below, divergence = len(scores), 0, 0.0
    for _, group in groupby(sorted(scores)):
        count = len(list(group))
        chosen = ((below + count) / total) ** n - (below / total) ** n
        if chosen > 0:
            divergence += chosen * math.log(chosen * total / count)
        below += count
    return divergence


def curve(items: Iterable[tuple[Sequence[float], Values | None, Values | None]]) -> list[dict[str, Any]]:
    """For n = 1, 2, 4, … up to the largest K: means over the prompts that have n answers.

    Each item is a prompt: the scores that choose, the rewards (None without a reward model), and the grades of its
    check (None without one; an answer that cannot be graded counts 0). A line holds `n`, `kl_bound`, `kl` (the mean
    of `kl_estimate`), and where known `reward` and `true`, each with the prompts it is a mean over.
    """
    listed = list(items)
    most = max((len(scores) for scores, _, _ in listed), default=0)
    lines = []
    for n in (2**i for i in range(most.bit_length())):
        divergences = [kl_estimate(scores, n) for scores, _, _ in listed if len(scores) >= n]
        line: dict[str, Any] = {"n": n, "kl_bound": kl_bound(n), "kl": math.fsum(divergences) / len(divergences)}
        for place, name in ((1, "reward"), (2, "true")):
            found = [
                best_of_n(item[0], [value or 0.0 for value in item[place] or ()], n)
                for item in listed
                if item[place] is not None and len(item[0]) >= n
            ]
            if found:
                line |= {name: math.fsum(found) / len(found), f"{name}_prompts": len(found)}
        lines.append(line)
    return lines
