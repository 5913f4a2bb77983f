"""Votes, standardising and combining, on numbers worked out by hand."""

import math

import pytest

from reward.scorers import best_index, combine, each, standardise, votes


def test_votes_are_log_counts_of_equal_answers():
    assert votes(["a", "b", "a", "a"], [1, 1, 1, 1]) == [math.log(3), 0.0, math.log(3), math.log(3)]


def test_standardise_gives_mean_zero_and_unit_deviation():
    assert standardise([1.0, 3.0], [1, 1]) == [-1.0, 1.0]
    assert standardise([0.0, 0.0, 3.0], [1, 1, 1]) == pytest.approx(
        [-1 / math.sqrt(2), -1 / math.sqrt(2), math.sqrt(2)]
    )


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0], [2.0, 2.0 + 1e-9], [None, None], [5.0]])
def test_a_scorer_without_an_opinion_adds_nothing(values):
    assert standardise(values, [1] * len(values)) == [0.0] * len(values)


def test_an_ungraded_answer_stands_at_the_mean():
    assert standardise([0.0, None, 1.0], [1, 1, 1]) == [-1.0, 0.0, 1.0]


def test_combined_is_the_weighted_sum_of_standardised_scorers():
    scores = {"reward": [10.0, 30.0], "votes": [1.0, 0.0], "verifier": [0.0, 1.0]}
    assert combine(scores, {"reward": 1.0, "votes": 1.5, "verifier": 0.0}, [1, 1], {}) == [-1.0 + 1.5, 1.0 - 1.5]
    assert combine({}, {"reward": 1.0}, [1, 1], {}) == [0.0, 0.0]


def test_best_is_the_first_of_equals_and_never_a_missing_one():
    assert best_index([None, 1.0, 2.0, 2.0]) == 2
    assert best_index([None, -5.0]) == 1


def test_a_filter_leaves_out_what_does_not_reach_it():
    scores = {"reward": [1.0, 3.0, 2.0], "verifier": [1.0, 0.0, None]}
    found = combine(scores, {"reward": 1.0}, [1, 1, 1], {"verifier": 1.0})
    assert found[1:] == [None, None]
    assert found[0] is not None
    assert combine(scores, {"reward": 1.0}, [1, 1, 1], {"reward": 2.0})[0] is None


def test_an_answer_counts_as_often_as_it_was_given():
    """One answer three times and another once are what four answers are."""
    assert each(["a", "b"], [3, 1]) == ["a", "a", "a", "b"]
    assert votes(["a", "b"], [3, 1]) == [math.log(3), 0.0]
    assert votes(["a", "a"], [2, 2]) == [math.log(4)] * 2
    assert standardise([0.0, 2.0], [3, 1]) == standardise([0.0, 0.0, 0.0, 2.0], [1] * 4)[2:]
    assert standardise([0.0, None, 2.0], [3, 9, 1])[1] == 0.0
    scores = {"reward": [1.0, 4.0], "verifier": [1.0, None]}
    assert combine(scores, {"reward": 1.0}, [3, 1], {"verifier": 1.0}) == [
        combine({"reward": [1.0, 1.0, 1.0, 4.0]}, {"reward": 1.0}, [1] * 4, {})[0], None,
    ]  # fmt: skip
