"""Picking tokens: greedy, nucleus and inverse-CDF sampling on distributions worked out by hand."""

import math

import pytest
import torch

from posttrain.engines.decoding import nucleus, pick
from posttrain.engines.protocol import Sampling
from posttrain.errors import UserError

LOGITS = torch.tensor([[0.5, 0.3, 0.0, 0.2]]).log()


def picked(uniform: float, temperature: float = 1.0, top_p: float = 1.0) -> tuple[int, float]:
    tokens, logprobs = pick(LOGITS, torch.tensor([uniform], dtype=torch.float64), torch.tensor([temperature]), top_p)
    return int(tokens), float(logprobs)


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.4999, 0), (0.5001, 1), (0.7999, 1), (0.8001, 3), (1 - 2**-53, 3)]
)
def test_uniform_numbers_go_through_the_distribution_function(uniform, token):
    assert picked(uniform) == (token, pytest.approx(math.log([0.5, 0.3, 0.0, 0.2][token])))


def test_temperature_shapes_the_draw_but_not_the_recorded_logprob():
    # At temperature 0.5 the probabilities are squared and normalised: 0.25, 0.09, 0, 0.04 over 0.38.
    assert picked(0.25 / 0.38 - 1e-4, temperature=0.5) == (0, pytest.approx(math.log(0.5)))
    assert picked(0.25 / 0.38 + 1e-4, temperature=0.5) == (1, pytest.approx(math.log(0.3)))


def test_temperature_zero_takes_the_likeliest():
    assert picked(0.99, temperature=0.0) == (0, pytest.approx(math.log(0.5)))


def test_nucleus_keeps_the_fewest_tokens_that_reach_top_p():
    probs = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert nucleus(probs, 0.5).tolist() == [[0.0, 0.5, 0.0]]
    assert nucleus(probs, 0.51).tolist() == [[0.0, 0.5, 0.3]]
    assert nucleus(probs, 0.81).tolist() == [[0.2, 0.5, 0.3]]


def test_top_p_renormalises_over_what_is_kept():
    # 0.5 and 0.3 stay, so the border lies at 0.625.
    assert picked(0.62, top_p=0.7)[0] == 0
    assert picked(0.63, top_p=0.7)[0] == 1


def test_rows_of_one_batch_have_their_own_temperatures():
    # Squared, 0.25 of 0.38 lies below 0.6578; as it is, 0.5 lies below 0.6; at 0 the likeliest is taken.
    tokens, _ = pick(LOGITS.expand(3, -1), torch.full((3,), 0.6), torch.tensor([0.5, 1.0, 0.0]), 1.0)
    assert tokens.tolist() == [0, 1, 0]


def test_a_range_of_temperatures_is_drawn_from_by_seed():
    sampling = Sampling(temperature=(0.2, 1.0))
    drawn = [sampling.temperature_of(seed) for seed in range(400)]
    assert drawn == [sampling.temperature_of(seed) for seed in range(400)]
    assert 0.2 <= min(drawn) < 0.22 and 0.98 < max(drawn) <= 1.0
    assert sum(drawn) / 400 == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"temperature": -1.0},
        {"temperature": (0.0, 1.0)},
        {"temperature": (1.0, 0.5)},
        {"top_p": 0.0},
        {"max_new_tokens": 0},
    ],
)
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(UserError, match="cannot be sampled"):
        Sampling(**wrong)
