"""The losses, as functions of log-probabilities in nats. Shapes: `_B` pairs, `_BT` pairs by tokens."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_loss(
    policy_chosen_B: Tensor, policy_rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, beta: float
) -> Tensor:
    """−log σ(β·((π_c − ref_c) − (π_r − ref_r))) for each pair, shape (B).

    Each argument is the summed log-probability of an answer's tokens, shape (B). log 2 where policy equals reference.
    Source: Rafailov et al. 2023, 2305.18290, equation 7; Llama 3, 4.1.4, with the format tokens left out of the sums.
    """
    logits_B = (policy_chosen_B - ref_chosen_B) - (policy_rejected_B - ref_rejected_B)
    return -logsigmoid(beta * logits_B)


def bradley_terry_loss(gap_B: Tensor, margin_B: Tensor | float = 0.0) -> Tensor:
    """−log σ(r_chosen − r_rejected − margin) for each pair, shape (B), of the gaps between its two rewards.

    Source: Llama 3, 4.1.2, which drops the margin; Llama 2, 2307.09288, equation 2, for the margin.
    """
    return -logsigmoid(gap_B - margin_B)


def length_normalised_nll(logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """−(sum of the log-probabilities where mask) / (tokens where mask), shape (B); 0 for a row without any.

    Source: the extra term on chosen answers in Llama 3, 4.1.4 (after Pang et al. 2024, 2404.19733, equation 1).
    """
    return -masked_sum(logprobs_BT, mask_BT) / mask_BT.sum(1).clamp(min=1)


def token_kl(change_B: Tensor, tokens_B: Tensor) -> Tensor:
    """e^d − 1 − d for each answer, shape (B), where d is the mean log-ratio policy/reference of its tokens, in nats.

    An estimate of KL(reference ‖ policy) a token, as far as the reference would have given the answer; never negative,
    0 where policy equals reference. Source: Schulman 2020, "Approximating KL divergence", estimator k3; of a mean
    log-ratio it is at most (Jensen) the mean of the tokens' own.
    """
    mean_B = change_B / tokens_B.clamp(min=1)
    return mean_B.expm1() - mean_B


def masked_sum(logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the tokens where the boolean mask holds, shape (B)."""
    return (logprobs_BT * mask_BT).sum(1)
