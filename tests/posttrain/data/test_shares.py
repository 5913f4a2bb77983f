"""Largest remainder against hand-worked cases and its own law."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.shares import largest_remainder


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ({"a": 1, "b": 1, "c": 1}, 10, {"a": 4, "b": 3, "c": 3}),
        ({"a": 47, "b": 16, "c": 15.8, "d": 12, "e": 9.2}, 10, {"a": 5, "b": 2, "c": 1, "d": 1, "e": 1}),
        ({"a": 0.1, "b": 0.2}, 3, {"a": 1, "b": 2}),
        ({"a": 0, "b": 5}, 7, {"a": 0, "b": 7}),
        ({"a": 1}, 0, {"a": 0}),
    ],
)  # fmt: skip
def test_hand_worked(weights, total, expected):
    assert largest_remainder(weights, total) == expected


WEIGHTS = st.dictionaries(st.text(max_size=3), st.floats(0.001, 1000), min_size=1, max_size=6)


@given(WEIGHTS, st.integers(0, 10_000))
def test_shares_sum_up_and_stay_within_one_of_the_quota(weights, total):
    shares = largest_remainder(weights, total)
    whole = sum(weights.values())
    assert sum(shares.values()) == total
    assert all(abs(shares[name] - total * weight / whole) < 1 + 1e-6 for name, weight in weights.items())
