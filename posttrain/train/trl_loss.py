"""TRL's losses by its own code, on our log-probabilities: so they share prompts and add up over micro-batches."""

from collections import defaultdict
from copy import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer


def trl_loss(
    trainer: DPOTrainer, logprobs_BT: Tensor, mask_BT: Tensor, pairs_N2: Tensor, reference_B: Tensor
) -> Tensor:
    """The mean over N pairs of the loss that the trainer's `loss_type` names; a scalar.

    `logprobs` are those of tokens, of which the boolean `mask` says what counts; `pairs` holds rows, the better one
    first, and `reference` what the reference gives to what counts of a row. TRL computes a loss in one method, with the
    model's pass and metrics gathered from all processes. It is asked here with a model that answers with these numbers
    and, as processes have different numbers of pairs, as if this process were the only one.
    """
    rows = pairs_N2.T.flatten()  # chosen rows, then rejected ones, as TRL's collator has them
    counted, mask = (logprobs_BT * mask_BT)[rows, 1:], mask_BT[rows].long()
    nothing = torch.zeros_like(counted, requires_grad=False)
    answer = SimpleNamespace(log_probs=counted, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    alone: Any = copy(trainer)
    alone.accelerator = SimpleNamespace(device=counted.device, gather=_same, gather_for_metrics=_same)
    alone._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    chosen, rejected = reference_B[rows].chunk(2)
    inputs = {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    loss: Tensor = DPOTrainer.compute_loss(alone, lambda **_: answer, inputs)
    return loss


def _same(value: Tensor) -> Tensor:
    return value
