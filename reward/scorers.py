"""The arithmetic of scores: votes, standardising within a prompt, the weighted sum. Plain numbers, no model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

REWARD, VOTES, VERIFIER, JUDGE, FILE, COMBINED = "reward", "votes", "verifier", "judge", "file", "combined"
"""The scorers' names in the table of scores; another reward model's is its key of `models:`."""

Values = Sequence[float | None]
"""One value for each different answer to a prompt, None where a scorer cannot grade it."""

Item = TypeVar("Item")


def votes(answers: Sequence[str], counts: Sequence[int]) -> list[float]:
    """For each answer the log of how many samples are equal to it (itself included), after self-consistency
    (2203.11171)."""
    total: Counter[str] = Counter()
    for answer, count in zip(answers, counts, strict=True):
        total[answer] += count
    return [math.log(total[answer]) for answer in answers]


def each(values: Sequence[Item], counts: Sequence[int]) -> list[Item]:
    """A value for each sample: that of an answer as often as the answer was given."""
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def standardise(values: Values, counts: Sequence[int]) -> list[float]:
    """Mean 0 and standard deviation 1 over the graded samples. Equal values, and those without a grade, become 0."""
    graded = [value for value in each(values, counts) if value is not None]
    mean = math.fsum(graded) / len(graded) if graded else 0.0
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in graded) / len(graded)) if graded else 0.0
    # Below this, the differences are rounding of equal rewards, not an opinion.
    if spread <= 1e-6 * max(1.0, abs(mean)):
        return [0.0] * len(values)
    return [0.0 if value is None else (value - mean) / spread for value in values]


def combine(
    scores: Mapping[str, Values], weights: Mapping[str, float], counts: Sequence[int], require: Mapping[str, float]
) -> list[float | None]:
    """The weighted sum of the standardised scorers for each answer; a scorer that is not there adds 0. `counts` says
    how many samples gave it.

    None for a candidate that a scorer of `require` gives less than it requires, or cannot grade.
    """
    total = [0.0] * len(counts)
    for scorer, weight in weights.items():
        if weight and scorer in scores:
            values = standardise(scores[scorer], counts)
            total = [so_far + weight * value for so_far, value in zip(total, values, strict=True)]
    passed = [all(_reaches(scores[name][i], least) for name, least in require.items()) for i in range(len(counts))]
    return [value if ok else None for value, ok in zip(total, passed, strict=True)]


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def best_index(values: Values) -> int:
    """Where the highest value stands, the first of equals; a missing value is lowest."""
    listed = [-math.inf if value is None else value for value in values]
    return listed.index(max(listed))
