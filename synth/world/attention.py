"""Causal attention for training small models on a CPU, block by block of queries.

PyTorch's flash kernel takes most of its time in the backward pass there, for rows of 64 to 2,000 tokens one and a half
to five times as long as this. A block of queries is multiplied with the keys up to its end only; what softmax gave is
kept for the backward pass, which is the plain one (Dao et al. 2022, 2205.14135, section 2.2).
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries at a time: a block's scores stay in a core's cache, and half of the masked work is left out."""


@torch.compiler.disable
def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Query, key and value (rows, heads, tokens, size) → (rows, tokens, heads, size), in bf16. For rows padded on the
    right: what is trained sees no padding, so there is no mask."""
    with torch.autocast("cpu", enabled=False):
        out: Tensor = _Causal.apply(query.bfloat16() * scaling, key.bfloat16(), value.bfloat16())
    return out.transpose(1, 2).contiguous(), None


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out, kept = torch.empty_like(value), []
        for first, end in _blocks(query):
            scores = query[:, :, first:end] @ key[:, :, :end].mT
            later = torch.ones(end - first, end - first, dtype=torch.bool).triu_(1)
            scores[..., first:].masked_fill_(later, float("-inf"))
            kept.append(scores.softmax(-1))
            out[:, :, first:end] = kept[-1] @ value[:, :, :end]
        ctx.save_for_backward(query, key, value, out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, *kept = ctx.saved_tensors
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        along = (d_out * out).sum(-1, keepdim=True)
        for (first, end), weights in zip(_blocks(query), kept, strict=True):
            d_rows = d_out[:, :, first:end]
            d_value[:, :, :end] += weights.mT @ d_rows
            d_scores = (d_rows @ value[:, :, :end].mT).sub_(along[:, :, first:end]).mul_(weights)
            d_query[:, :, first:end] = d_scores @ key[:, :, :end]
            d_key[:, :, :end] += d_scores.mT @ query[:, :, first:end]
        return d_query, d_key, d_value


def _blocks(query: Tensor) -> list[tuple[int, int]]:
    """First token and the one after the last, of each block."""
    tokens = query.shape[-2]
    return [(first, min(tokens, first + BLOCK)) for first in range(0, tokens, BLOCK)]
