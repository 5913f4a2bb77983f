"""The decode loop: one token a step for all rows of a batch, each row with its own noise.

Letters in shapes: B rows, V vocabulary, N new tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.prefix import prefill
from posttrain.engines.protocol import Sampling

COMPACT_BELOW = 0.8
"""Finished rows are computed along until fewer than this share of the batch is alive; then they are cut out of the cache."""


@dataclass
class Draft:
    """A row under way: generated ids, summed log-probability at temperature 1, and whether it ended itself."""

    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    stopped: bool = False


@torch.inference_mode()
def decode(
    model: Any, prompts: Sequence[list[int]], seeds: Sequence[Sequence[int]], sampling: Sampling, stop_ids: Sequence[int],
    pad_id: int,
) -> list[list[Draft]]:  # fmt: skip
    """Continue each prompt once for each of its seeds; the prompt itself is computed once.

    Returns the drafts of each prompt in the order of its seeds. Noise depends on a row's seed alone, so other rows in
    the batch change a draft only where rounding moves a probability across its random number.
    """
    copies = [len(s) for s in seeds]
    prefix = prefill(model, prompts, copies, sampling.max_new_tokens, pad_id, model.device, logits_to_keep=1)
    drafts = [Draft() for _ in range(sum(copies))]
    noise_BN = _noise([seed for group in seeds for seed in group], sampling, model.device)
    rows = list(range(len(drafts)))
    logits_BV = prefix.output.logits[:, -1].repeat_interleave(torch.tensor(copies, device=model.device), dim=0)
    length = max(map(len, prompts))
    stops = set(stop_ids)
    for step in range(sampling.max_new_tokens):
        tokens_B, logprobs_B = pick(logits_BV, None if noise_BN is None else noise_BN[:, step], sampling)
        for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            draft = drafts[row]
            if not draft.stopped:
                draft.ids.append(token)
                draft.logprob += logprob
                draft.stopped = token in stops
        alive = [place for place, row in enumerate(rows) if not drafts[row].stopped]
        if not alive or step + 1 == sampling.max_new_tokens:
            break
        if len(alive) < COMPACT_BELOW * len(rows):
            kept = torch.tensor(alive, device=model.device)
            prefix.keep(kept)
            tokens_B, noise_BN = tokens_B[kept], None if noise_BN is None else noise_BN[kept]
            rows = [rows[place] for place in alive]
        length += 1
        logits_BV = model(
            input_ids=tokens_B[:, None], attention_mask=prefix.attention(length), position_ids=(prefix.lengths + step)[:, None],
            past_key_values=prefix.cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip
    ends = torch.tensor(copies).cumsum(0).tolist()
    return [drafts[end - count : end] for end, count in zip(ends, copies, strict=True)]


def _noise(seeds: Sequence[int], sampling: Sampling, device: torch.device) -> Tensor | None:
    """A uniform number for every row and step (B, N), each row from its own seed; None for greedy."""
    if sampling.temperature == 0:
        return None
    rows = [
        torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds
    ]
    return torch.stack(rows).to(device)


def pick(logits_BV: Tensor, noise_B: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Next tokens (B,) and their log-probabilities at temperature 1 (B,): the likeliest, or by inverse distribution function."""
    logits_BV = logits_BV.float()
    if noise_B is None:
        tokens_B = logits_BV.argmax(-1)
    else:
        probs_BV = torch.softmax(logits_BV / sampling.temperature, -1, dtype=torch.float64)
        if sampling.top_p < 1:
            probs_BV = nucleus(probs_BV, sampling.top_p)
        cumulative_BV = probs_BV.cumsum(-1)
        # Not above the last step of the distribution, so that rounding never picks a token of probability zero.
        total_B = cumulative_BV[:, -1]
        target_B = torch.minimum(noise_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
        tokens_B = torch.searchsorted(cumulative_BV, target_B[:, None], right=True)[:, 0]
    chosen_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0]
    return tokens_B, chosen_B - logits_BV.logsumexp(-1)


def nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Zero all but the fewest likeliest tokens whose probabilities reach `top_p` (Holtzman et al. 2020, 1904.09751)."""
    ordered_BV, order_BV = probs_BV.sort(-1, descending=True, stable=True)
    before_BV = ordered_BV.cumsum(-1) - ordered_BV
    return torch.zeros_like(probs_BV).scatter(-1, order_BV, ordered_BV.where(before_BV < top_p, 0.0))
