"""The arithmetic of scores: votes, standardising within a prompt, the weighted sum. Plain numbers, no model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

REWARD, VOTES, VERIFIER, COMBINED = "reward", "votes", "verifier", "combined"
"""The scorers' names in the table of scores."""

Values = Sequence[float | None]
"""One value for each candidate of a prompt, None where a scorer cannot grade it."""


def votes(answers: Sequence[str]) -> list[float]:
    """For each answer the log of how many are equal to it (itself included), after self-consistency (2203.11171)."""
    counts = Counter(answers)
    return [math.log(counts[answer]) for answer in answers]


def standardise(values: Values) -> list[float]:
    """Mean 0 and standard deviation 1 over the graded values. Equal values, and those without a grade, become 0."""
    graded = [value for value in values if value is not None]
    mean = math.fsum(graded) / len(graded) if graded else 0.0
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in graded) / len(graded)) if graded else 0.0
    # Below this, the differences are rounding of equal rewards, not an opinion.
    if spread <= 1e-6 * max(1.0, abs(mean)):
        return [0.0] * len(values)
    return [0.0 if value is None else (value - mean) / spread for value in values]


def combine(scores: Mapping[str, Values], weights: Mapping[str, float], count: int) -> list[float]:
    """The weighted sum of the standardised scorers for `count` candidates; a scorer that is not there adds 0."""
    total = [0.0] * count
    for scorer, weight in weights.items():
        if weight and scorer in scores:
            total = [so_far + weight * value for so_far, value in zip(total, standardise(scores[scorer]), strict=True)]
    return total


def best_index(values: Values) -> int:
    """Where the highest value stands, the first of equals; a missing value is lowest."""
    listed = [-math.inf if value is None else value for value in values]
    return listed.index(max(listed))
