"""The losses against published numbers, numbers worked out by hand, and TRL's own."""

import math

import torch

from posttrain.chat import CONTEXT, FORMAT, TRAINED
from posttrain.train.batches import preference_mask
from posttrain.train.losses import dpo_loss, length_normalised_nll, masked_sum


def test_dpo_known_vector() -> None:
    """torchtune's vector (tests/torchtune/rlhf/loss/test_dpo_loss.py), beta 0.1."""
    loss = dpo_loss(
        torch.tensor([-0.5, -10.0, -1.0]),
        torch.tensor([-0.1, -30.0, -21.0]),
        torch.tensor([-0.5, -10.1, -0.1]),
        torch.tensor([-0.1, -20.1, -0.1]),
        beta=0.1,
    )
    torch.testing.assert_close(loss, torch.tensor([0.6931, 0.3133, 0.1269]), atol=1e-4, rtol=0)


def test_dpo_is_log_two_where_policy_is_reference() -> None:
    chosen, rejected = torch.tensor([-3.0, -70.0]), torch.tensor([-9.0, -0.5])
    loss = dpo_loss(chosen, rejected, chosen, rejected, beta=0.7)
    torch.testing.assert_close(loss, torch.full((2,), math.log(2)))


def test_format_tokens_leave_the_preference_term_and_stay_in_the_nll() -> None:
    """Two answers of two tokens and an end of turn, after one context token; sums by hand."""
    mask = torch.tensor([[CONTEXT, TRAINED, TRAINED, FORMAT], [CONTEXT, TRAINED, FORMAT, CONTEXT]])
    logprobs = torch.tensor([[-9.0, -1.0, -2.0, -6.0], [-9.0, -4.0, -2.0, -9.0]])
    assert masked_sum(logprobs, preference_mask(mask, True)).tolist() == [-3.0, -4.0]
    assert masked_sum(logprobs, preference_mask(mask, False)).tolist() == [-9.0, -6.0]
    assert length_normalised_nll(logprobs, mask > 0).tolist() == [3.0, 3.0]


def test_nll_of_a_row_without_tokens_is_zero() -> None:
    assert length_normalised_nll(torch.tensor([[-1.0, -2.0]]), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [0.0]
