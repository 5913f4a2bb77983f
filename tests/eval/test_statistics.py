"""Statistics against scipy and statsmodels, and against values worked by hand."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import permutation_test
from statsmodels.discrete.discrete_model import Logit
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from eval.statistics import (
    bootstrap,
    effective_n,
    even_length_win_rate,
    holm,
    llama_half_width,
    mcnemar,
    needed_n,
    paired_change,
    paired_p,
    pass_at_k,
    rate,
    sign_flip,
)
from posttrain.checks.intervals import paired_difference, wilson

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@settings(max_examples=50, deadline=None)
@given(BITS)
def test_mcnemar_is_statsmodels_exact(pairs):
    before, after = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    gained, lost = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
    expected = mcnemar_of_statsmodels([[0, gained], [lost, 0]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar(before, after) == pytest.approx(min(1.0, expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values):
    adjusted = holm({str(number): p for number, p in enumerate(p_values)})
    assert list(adjusted.values()) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_sign_flip_is_scipys_permutation_test():
    rng = random.Random(3)
    before = [rng.random() for _ in range(12)]
    after = [min(1.0, value + rng.uniform(-0.2, 0.35)) for value in before]
    expected = permutation_test(
        (before, after), lambda a, b, axis: np.mean(a - b, axis), permutation_type="samples", n_resamples=100_000
    ).pvalue
    assert sign_flip(before, after, draws=20_000) == pytest.approx(expected, abs=0.01)


def test_bootstrap_is_scipys_percentiles():
    values = np.random.default_rng(1).beta(2, 5, 300)
    expected = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert bootstrap(list(values)) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_clusters_widen_as_the_sandwich_says():
    """Forty sources of eight prompts that all agree tell as much as forty prompts."""
    rng = random.Random(5)
    values, clusters = [], []
    for source in range(40):
        grade = float(rng.random() < 0.6)
        values += [grade] * 8
        clusters += [str(source)] * 8
    assert effective_n(values, clusters) == pytest.approx(39, abs=1)
    found, alone = rate(values, clusters), wilson(sum(values), 320)
    assert found.accuracy == alone.accuracy
    assert found.high - found.low > 2.5 * (alone.high - alone.low)


def test_paired_clusters_are_statsmodels_clustered_regression():
    rng = random.Random(7)
    before, after, clusters = [], [], []
    for source in range(60):
        shift = rng.choice((-1, 0, 0, 1, 1))
        for _ in range(5):
            before.append(float(shift < 0))
            after.append(float(shift > 0 and rng.random() < 0.8))
            clusters.append(str(source))
    gains = np.array(after) - np.array(before)
    fit = OLS(gains, np.ones(len(gains))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array([int(c) for c in clusters])}, use_t=False
    )
    low, high = fit.conf_int()[0]
    change = paired_change(before, after, clusters)
    assert (change.low, change.high) == pytest.approx((low, high), abs=2e-3)


def test_without_shared_sources_the_paired_change_is_that_of_the_core():
    before, after = [1.0, 0.0, 0.0, 1.0] * 9, [1.0, 1.0, 0.0, 1.0] * 9
    assert paired_change(before, after) == paired_difference(before, after)
    assert paired_change(before, after, [str(number) for number in range(36)]) == paired_difference(before, after)
    wide = paired_change(before, after, z=2 * 1.959963984540054)
    plain = paired_difference(before, after)
    assert (wide.low + wide.high) == pytest.approx(plain.low + plain.high)
    assert (wide.high - wide.low) == pytest.approx(2 * (plain.high - plain.low))


def test_grades_of_0_and_1_are_compared_exactly_and_others_by_signs():
    assert paired_p([0.0] * 6, [1.0] * 6) == pytest.approx(2 / 64)
    assert paired_p([0.0] * 6, [0.5] * 6) == pytest.approx(2 / 64, abs=0.015)
    assert paired_p([0.5], [0.5]) == 1.0
    assert paired_p([], []) == 1.0


def test_llamas_half_width_by_hand():
    """1.96 · sqrt(0.25 / 100)."""
    assert llama_half_width(0.5, 100) == pytest.approx(0.098)
    assert llama_half_width(0.0, 0) == 0.0


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one():
    """Of five answers two pass: a pair without either is one of the three pairs of the others, of ten."""
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(5, 2, 4) == 1.0
    with pytest.raises(ValueError, match="pass@6 of 5"):
        pass_at_k(5, 2, 6)


def test_needed_n_has_the_power_it_promises():
    """Four points of change where ten percent of prompts differ: the simulated power of McNemar's test at that n."""
    n = needed_n(0.04, 0.10)
    assert n == 489
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        gained, lost, _ = rng.multinomial(n, [0.07, 0.03, 0.90])
        found += mcnemar([0.0] * gained + [1.0] * lost, [1.0] * gained + [0.0] * lost) < 0.05
    assert 0.74 < found / 400 < 0.86
    with pytest.raises(ValueError, match=r"a difference of 0.2 cannot come of 0.1"):
        needed_n(0.2, 0.1)


def test_the_win_rate_at_equal_length_is_a_logit_read_at_no_difference():
    """Longer answers win here, and the model's are longer, so its plain win rate flatters it."""
    rng = random.Random(2)
    longer = [rng.gauss(80, 100) for _ in range(400)]
    wins = [float(rng.random() < 1 / (1 + math.exp(-extra / 60))) for extra in longer]
    x = np.stack([np.ones(400), np.tanh(np.array(longer) / np.std(longer))], 1)
    expected = 1 / (1 + math.exp(-Logit(wins, x).fit(disp=0).params[0]))
    assert even_length_win_rate(wins, longer) == pytest.approx(expected, abs=2e-3)
    assert even_length_win_rate(wins, longer) < sum(wins) / 400 - 0.05
    assert even_length_win_rate([1.0] * 20, [0.0] * 20) > 0.9


def test_grades_between_0_and_1_have_the_bootstraps_interval():
    found = rate([0.0, 0.5, 1.0] * 50)
    assert (found.n, found.accuracy) == (150, 0.5)
    assert found.high - found.low < wilson(75, 150).high - wilson(75, 150).low
