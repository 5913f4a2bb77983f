"""Attention of answers over a prompt that stands once in memory, with gradients.

A row's softmax over prompt and own tokens is that of two parts, merged by their log-sums. Each part is one call of
torch's flash kernel without a mask: the queries of all answers of a prompt over its keys, and each answer over itself.
Given the merged output and log-sum, the kernel's own backward pass gives each part's exact gradients (as in ring
attention: Liu et al. 2023, 2310.01889). Nothing is copied for each answer, not even grouped-query heads.

Letters in shapes: R prompts, B rows (those of a prompt side by side), H key heads, G query heads of each, P and T
tokens, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from posttrain.engines.shared import sees_everything

ATTENTION = "posttrain_answers"
"""`sdpa` in every pass but that of answers over their prompts."""

FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Prompts:
    """Keys and values (R, H, P, D) of each layer; `spans` has each prompt's tokens, its first row and the row after."""

    layers: list[tuple[Tensor, Tensor]]
    spans: list[tuple[int, int, int]]


def use(model: Any) -> bool:
    """Let a model attend this way; False where it cannot: on another device, or where layers see less than all."""
    config = model.config
    if config._attn_implementation == "sdpa" and model.device.type == "cpu" and sees_everything(config):
        config._attn_implementation = ATTENTION
    return bool(config._attn_implementation == ATTENTION and not getattr(config, "attention_dropout", 0.0))


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    answers_of: Prompts | None = None, scaling: float | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Query (B, H·G, T, D), own keys and values (B, H, T, D) → (B, T, H·G, D); plain `sdpa` without prompts."""
    if answers_of is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    prompt_key, prompt_value = answers_of.layers[module.layer_idx]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = _TwoParts.apply(query, key, value, prompt_key, prompt_value, answers_of.spans, scale)
    return out.transpose(1, 2), None


class _TwoParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor,
        spans: list[tuple[int, int, int]], scale: float,
    ) -> Tensor:  # fmt: skip
        heads, queries = key.shape[1], query.shape[1] // key.shape[1]
        own_keys = [part.repeat_interleave(queries, 1) for part in (key, value)]
        own, own_sum = FORWARD(query, *own_keys, 0.0, True, scale=scale)
        read, read_sum = torch.empty_like(own), torch.empty_like(own_sum)
        for number, (length, start, end) in enumerate(spans):
            known = [part[number : number + 1, :, :length] for part in (prompt_key, prompt_value)]
            found, found_sum = FORWARD(_together(query[start:end], heads), *known, 0.0, False, scale=scale)
            read[start:end] = _apart(found, query[start:end])
            read_sum[start:end] = _apart(found_sum.unsqueeze(-1), query[start:end]).squeeze(-1)
        total = torch.logaddexp(own_sum, read_sum)
        out = own * (own_sum - total).exp().unsqueeze(-1) + read * (read_sum - total).exp().unsqueeze(-1)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, prompt_key, prompt_value, out, total)
        ctx.spans, ctx.scale = spans, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query, key, value, prompt_key, prompt_value, out, total = ctx.saved_tensors
        gradient, scale = gradients[0], ctx.scale
        heads, queries = key.shape[1], query.shape[1] // key.shape[1]
        own_keys = [part.repeat_interleave(queries, 1) for part in (key, value)]
        d_query, *d_own = BACKWARD(gradient, query, *own_keys, out, total, 0.0, True, scale=scale)
        d_key, d_value = (part.unflatten(1, (heads, queries)).sum(2) for part in d_own)
        d_prompt = torch.zeros_like(prompt_key), torch.zeros_like(prompt_value)
        d_query = d_query.contiguous()
        for number, (length, start, end) in enumerate(ctx.spans):
            known = [part[number : number + 1, :, :length] for part in (prompt_key, prompt_value)]
            asked, said, upstream = (_together(part[start:end], heads) for part in (query, out, gradient))
            sums = _together(total[start:end].unsqueeze(-1), heads).squeeze(-1)
            d_asked, *d_known = BACKWARD(upstream, asked, *known, said, sums, 0.0, False, scale=scale)
            d_query[start:end] += _apart(d_asked, query[start:end])
            for whole, part in zip(d_prompt, d_known, strict=True):
                whole[number, :, :length] = part[0]
        return d_query, d_key, d_value, *d_prompt, None, None


def _together(rows: Tensor, heads: int) -> Tensor:
    """All queries of one prompt's rows as one row: (K, H·G, T, X) → (1, H, K·G·T, X)."""
    return rows.unflatten(1, (heads, -1)).transpose(0, 1).flatten(1, 3).unsqueeze(0)


def _apart(together: Tensor, rows: Tensor) -> Tensor:
    """The inverse of `_together`, for rows of the shape (K, H·G, T, ·)."""
    heads, (count, all_heads, length) = together.shape[1], rows.shape[:3]
    return together[0].unflatten(1, (count, all_heads // heads, length)).transpose(0, 1).flatten(1, 2)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
