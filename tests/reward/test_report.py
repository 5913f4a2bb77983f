"""The numbers of the reward model's report, worked by hand or by scipy."""

import math

import pytest
from scipy.stats import spearmanr

from posttrain.data.rows import Pair
from reward.best_of import best_of_n, curve, kl_bound, kl_estimate
from reward.report import Measured, calibration, histogram, report, spearman

SAY = {"role": "assistant", "content": "x"}


def measured(gap, capability="general", rating=None, chosen_tokens=10, rejected_tokens=10, language="en"):
    pair = Pair((), SAY, SAY, capability, language=language, rating=rating, source="file")
    return Measured(pair, gap, 0.0, chosen_tokens, rejected_tokens)


def test_accuracy_by_group_with_intervals_and_a_tie_is_wrong():
    found = report(
        [
            measured(1.0, "tool_use", "better"), measured(0.0, "tool_use"), measured(-2.0, language="de"),
            measured(0.1, language="de"),
        ]
    )  # fmt: skip
    assert (found["n"], found["correct"], found["accuracy"]) == (4, 2, 0.5)
    assert found["by_capability"]["tool_use"]["accuracy"] == 0.5
    assert {name: part["n"] for name, part in found["by_rating"].items()} == {"better": 1, "unrated": 3}
    assert {name: part["n"] for name, part in found["by_language"].items()} == {"de": 2, "en": 2}
    assert found["by_source"].keys() == {"file"}
    better = found["by_rating"]["better"]
    assert better["low"] == pytest.approx(0.2065, abs=1e-4)
    assert better["high"] == 1.0


def test_calibration_compares_the_expected_with_the_observed_share():
    """sigmoid(ln 3) is 0.75 and sigmoid(ln 19) 0.95: two bins, of two pairs each."""
    found = calibration([math.log(3), -math.log(3), math.log(19), math.log(19)])
    assert [(b["n"], b["observed"]) for b in found["bins"]] == [(2, 0.5), (2, 1.0)]
    assert [b["expected"] for b in found["bins"]] == pytest.approx([0.75, 0.95])
    assert found["ece"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert calibration([]) == {"ece": 0.0, "bins": []}


def test_the_histogram_has_every_gap_once():
    found = histogram([-100.0, -0.5, 0.0, 0.3, 8.0])
    assert {(part["low"], part["high"]): part["n"] for part in found if part["n"]} == {
        (None, -8.0): 1, (-0.5, 0.0): 1, (0.0, 0.5): 2, (8.0, None): 1,
    }  # fmt: skip


def test_length_is_told_apart_from_merit():
    found = report([measured(2.0, chosen_tokens=20), measured(-1.0, chosen_tokens=5), measured(1.0)])["length"]
    assert (found["better_longer"]["n"], found["better_longer"]["accuracy"]) == (1, 1.0)
    assert (found["better_shorter"]["n"], found["better_shorter"]["accuracy"]) == (1, 0.0)
    assert (found["matched"]["n"], found["matched"]["accuracy"]) == (1, 1.0)
    assert found["correlation"] == pytest.approx(spearmanr([20, 10, 5, 10, 10, 10], [2, 0, -1, 0, 1, 0]).statistic)
    assert spearman([1.0, 1.0], [1.0, 2.0]) is None


def test_best_of_n_is_the_mean_over_all_draws():
    """Every subset of five answers, the one of highest score taken."""
    from itertools import combinations

    scores, values = [0.3, 2.0, -1.0, 5.0, 0.9], [1.0, 0.0, 1.0, 0.0, 1.0]
    for n in range(1, 6):
        draws = [values[max(draw, key=lambda i: scores[i])] for draw in combinations(range(5), n)]
        assert best_of_n(scores, values, n) == pytest.approx(sum(draws) / len(draws))
    assert best_of_n([1.0, 1.0, 0.0], [1.0, 0.0, 1.0], 3) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="best of 4 from 3"):
        best_of_n([1.0, 2.0, 3.0], [0.0] * 3, 4)


def test_the_curve_has_reward_truth_and_the_kl_bound():
    lines = curve([([0.0, 1.0], [0.0, 1.0], [0.0, 1.0]), ([2.0, 1.0, 0.0, 3.0], [2.0, 1.0, 0.0, 3.0], None)])
    assert [line["n"] for line in lines] == [1, 2, 4]
    assert [line["kl_bound"] for line in lines] == pytest.approx([0.0, math.log(2) - 0.5, math.log(4) - 0.75])
    assert lines[0]["reward"] == pytest.approx((0.5 + 1.5) / 2)
    assert lines[1]["true"] == 1.0
    assert (lines[1]["true_prompts"], lines[1]["reward_prompts"]) == (1, 2)
    assert lines[2]["reward"] == 3.0
    assert "true" not in lines[2]
    assert kl_bound(1) == 0.0
    assert curve([]) == []


def test_the_divergence_of_best_of_n_is_estimated_from_the_samples():
    """Two answers, one right in a quarter of the samples: of two draws the best is right in 1 − (3/4)² = 7/16."""
    scores = [0.0, 0.0, 0.0, 1.0]
    right = 7 / 16
    expected = right * math.log(right / (1 / 4)) + (1 - right) * math.log((1 - right) / (3 / 4))
    assert kl_estimate(scores, 2) == pytest.approx(expected)
    assert kl_estimate(scores, 1) == pytest.approx(0.0)
    assert kl_estimate([2.0] * 8, 8) == pytest.approx(0.0)
    many = [float(i) for i in range(4000)]
    for n in (2, 4, 16):
        assert kl_estimate(many, n) == pytest.approx(kl_bound(n), rel=2e-3)
        assert kl_estimate([float(i) for i in range(16)], n) < kl_bound(n)
    lines = curve([(scores, scores, None), ([1.0, 2.0], [1.0, 2.0], None)])
    other = kl_estimate([1.0, 2.0], 2)
    assert lines[1]["kl"] == pytest.approx((expected + other) / 2)
    assert lines[2]["kl"] == pytest.approx(kl_estimate(scores, 4))
