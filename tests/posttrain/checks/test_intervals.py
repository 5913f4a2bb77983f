"""Intervals against scipy and against published worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from posttrain.checks.intervals import paired_difference, wilson


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (0, 40), (7, 9), (40, 40), (297, 1200), (1, 100_000)])
def test_wilson_is_scipys(correct, n):
    rate, interval = wilson(correct, n), binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert (rate.n, rate.accuracy) == (n, correct / n)
    assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_wilson_of_nothing_is_everything():
    rate = wilson(0, 0)
    assert (rate.accuracy, rate.low, rate.high) == (0.0, 0.0, 1.0)


def test_wilson_refuses_more_right_than_there_are():
    with pytest.raises(ValueError, match="5 correct of 4"):
        wilson(5, 4)


def test_paired_difference_is_bonett_and_price():
    """Airway data of Bentur et al. as worked in Fagerland et al. 2014: 1 gained, 7 lost, of 21."""
    before = [0] * 1 + [1] * 7 + [1] * 1 + [0] * 12
    after = [1] * 1 + [0] * 7 + [1] * 1 + [0] * 12
    change = paired_difference(before, after)
    assert change.change == pytest.approx(-6 / 21)
    assert (change.low, change.high) == pytest.approx((-0.5084, -0.0134), abs=1e-4)
    assert change.significant


def test_no_difference_at_all_still_has_a_width():
    change = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert (change.change, change.significant) == (0.0, False)
    assert change.low < 0 < change.high
    assert change.low == pytest.approx(-change.high)


def test_large_samples_agree_with_the_paired_t_interval():
    before = [float(i % 3 == 0) for i in range(3000)]
    after = [float(i % 3 == 0 or i % 7 == 0) for i in range(3000)]
    change, reference = paired_difference(before, after), ttest_rel(after, before).confidence_interval(0.95)
    assert (change.low, change.high) == pytest.approx((reference.low, reference.high), abs=1e-3)
    assert change.significant


def test_an_unpaired_call_is_refused():
    with pytest.raises(ValueError, match="1 grades before, 2 after"):
        paired_difference([1.0], [1.0, 0.0])


def test_of_no_pairs_nothing_is_claimed():
    change = paired_difference([], [])
    assert (change.n, change.low, change.high, change.significant) == (0, -1.0, 1.0, False)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
def test_turning_the_pairs_round_mirrors_the_interval(pairs):
    there = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    back = paired_difference([b for _, b in pairs], [a for a, _ in pairs])
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.significant == back.significant
