"""The decode loop: one token a step for all rows of a batch, each row with its own noise.

Letters in shapes: B rows, V vocabulary, N new tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.prefix import Prefix
from posttrain.engines.protocol import Sampling
from posttrain.engines.shared import SharedPrompts, begin

COMPACT_BELOW = 0.8
"""Finished rows are computed along until fewer than this share of the batch goes on; then they leave the cache."""


@dataclass
class Draft:
    """A row under way: generated ids, summed log-probability at temperature 1, and whether it ended itself."""

    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    stopped: bool = False


def decode(
    model: Any,
    prompts: Sequence[list[int]],
    seeds: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    sampling: Sampling,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[list[Draft]]:
    """Continue each prompt once for each of its seeds, at its own temperature; the prompt itself is computed once.

    Returns the drafts of each prompt in the order of its seeds. Noise depends on a row's seed alone, so other rows in
    the batch change a draft only where rounding moves a probability across its random number.
    """
    copies = [len(own) for own in seeds]
    with torch.inference_mode():
        prefix = begin(model, prompts, copies, sampling.max_new_tokens, pad_id)
        noise_BN = _noise([seed for own in seeds for seed in own], sampling, model.device)
        heat_B = torch.tensor(temperatures, device=model.device)[prefix.rows]
        drafts = _steps(model, prefix, noise_BN, heat_B, sampling, frozenset(stop_ids))
    return [drafts[end - count : end] for end, count in zip(accumulate(copies), copies, strict=True)]


def _steps(
    model: Any,
    prefix: SharedPrompts | Prefix,
    noise_BN: Tensor,
    heat_B: Tensor,
    sampling: Sampling,
    stops: frozenset[int],
) -> list[Draft]:
    """Step until every row has ended or has all its tokens; `running` are the rows still in the batch."""
    drafts = [Draft() for _ in range(len(noise_BN))]
    running, tokens_B = drafts, prefix.last
    for step in range(sampling.max_new_tokens):
        positions_B = prefix.lengths + step
        logits_BV = prefix.go_on(model, tokens_B[:, None], positions_B[:, None]).logits[:, -1]
        tokens_B, logprobs_B = pick(logits_BV, noise_BN[:, step], heat_B, sampling.top_p)
        _write_down(running, tokens_B, logprobs_B, stops)
        going = [place for place, draft in enumerate(running) if not draft.stopped]
        if not going:
            break
        if len(going) < COMPACT_BELOW * len(running):
            kept = torch.tensor(going, device=tokens_B.device)
            prefix.keep(kept)
            running = [running[place] for place in going]
            tokens_B, noise_BN, heat_B = tokens_B[kept], noise_BN[kept], heat_B[kept]
    return drafts


def _write_down(running: list[Draft], tokens_B: Tensor, logprobs_B: Tensor, stops: frozenset[int]) -> None:
    for draft, token, logprob in zip(running, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
        if not draft.stopped:
            draft.ids.append(token)
            draft.logprob += logprob
            draft.stopped = token in stops


def _noise(seeds: Sequence[int], sampling: Sampling, device: torch.device) -> Tensor:
    """A uniform number for every row and step (B, N), each row from its own seed."""
    steps = sampling.max_new_tokens
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.rand(steps, generator=own, dtype=torch.float64) for own in generators]).to(device)


def pick(logits_BV: Tensor, noise_B: Tensor, temperature_B: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Next tokens (B,) and their log-probabilities at temperature 1 (B,).

    The likeliest at temperature 0; else where the distribution function passes the row's uniform number.
    """
    logits_BV = logits_BV.float()
    likeliest_B, cold_B = logits_BV.argmax(-1), temperature_B == 0
    tokens_B = likeliest_B
    if not cold_B.all():
        probs_BV = torch.softmax(logits_BV / temperature_B.where(~cold_B, 1.0)[:, None], -1, dtype=torch.float64)
        if top_p < 1:
            probs_BV = nucleus(probs_BV, top_p)
        cumulative_BV = probs_BV.cumsum(-1)
        # Not above the last step of the distribution, so that rounding never picks a token of probability zero.
        total_B = cumulative_BV[:, -1]
        target_B = torch.minimum(noise_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
        drawn_B = torch.searchsorted(cumulative_BV, target_B[:, None], right=True)[:, 0]
        tokens_B = torch.where(cold_B, likeliest_B, drawn_B)
    chosen_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0]
    return tokens_B, chosen_B - logits_BV.logsumexp(-1)


def nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Zero all but the fewest likeliest tokens whose probabilities reach `top_p` (Holtzman et al. 2020, 1904.09751)."""
    ordered_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = ordered_BV.cumsum(-1) - ordered_BV
    return torch.zeros_like(probs_BV).scatter(-1, order_BV, ordered_BV.where(before_BV < top_p, 0.0))
