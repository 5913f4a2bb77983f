"""Decoding over prompts whose keys and values stand once in memory, however many rows go on from each.

A step's queries of one prompt's rows meet that prompt's keys in one product, and each row's own tokens beside it; one
softmax runs over both (after Hydragen, Juravsky et al. 2024, 2402.05099, which merges two). It is attention over the
whole row, exactly. Models whose layers see less than everything before them go on as rows of their own.

Letters in shapes: R prompts, B rows, S rows of one prompt at most, H key heads, G query heads of each, P padded prompt
length, T own tokens so far, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from posttrain.engines.prefix import Layer, Prefix, RoomyLayer, compute, rows_of, unshared

ATTENTION = "posttrain_shared_prompts"


def begin(
    model: Any, prompts: Sequence[list[int]], copies: Sequence[int], room: int, pad_id: int
) -> "SharedPrompts | Prefix":
    """Run the prompts once and give prompt r `copies[r]` rows with room for `room` tokens, its last included."""
    rows = rows_of(copies, model.device)
    if not sees_everything(model.config):
        return unshared(compute(model, prompts, pad_id, "left"), rows, room)
    computed = compute(model, prompts, pad_id, "right")
    own = [RoomyLayer(keys[:, :, :0], values[:, :, :0], rows, room) for keys, values in computed.layers]
    last, lengths = computed.last[rows], computed.lengths[rows]
    return SharedPrompts(computed.layers, Cache(layers=own), rows, last, lengths, computed.padded)


def sees_everything(config: Any) -> bool:
    """Whether every layer attends to all tokens before it, with nothing done to the scores."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not any(
        getattr(config, name, None)
        for name in ("sliding_window", "attn_logit_softcapping", "attention_chunk_size", "is_encoder_decoder")
    )


@dataclass
class SharedPrompts:
    """Rows that go on from their prompts, with the members of `posttrain.engines.prefix.Prefix`.

    `layers` are the prompts' (R, H, P, D) keys and values, `own` those of the rows since; `rows` (B,) says which prompt
    each row belongs to, `padded` (R, P) where a prompt has no token. Of a model that is split over devices each layer's
    keys and values lie on its own, all else on the first.
    """

    layers: list[Layer]
    own: Cache
    rows: Tensor
    last: Tensor
    lengths: Tensor
    padded: Tensor | None

    def __post_init__(self) -> None:
        self._place()

    def go_on(self, model: Any, ids: Tensor, positions: Tensor) -> Any:
        """What the model says of the next id (B, 1) of every row; it becomes part of the row."""
        usual = model.config._attn_implementation
        model.config._attn_implementation = ATTENTION
        try:
            return model(
                input_ids=ids, position_ids=positions, past_key_values=self.own, use_cache=True, shared_prompts=self
            )
        finally:
            model.config._attn_implementation = usual

    def keep(self, places: Tensor) -> None:
        """Leave only the rows at `places`, and the prompts that still have any."""
        for layer in self.own.layers:
            layer.keep(places)
        alive, self.rows = self.rows[places].unique(return_inverse=True)
        self.lengths = self.lengths[places]
        if len(alive) < len(self.layers[0][0]):
            self.layers = [(keys[alive.to(keys.device)], values[alive.to(keys.device)]) for keys, values in self.layers]
            self.padded = None if self.padded is None else self.padded[alive]
        self._place()

    def _place(self) -> None:
        """Where each row stands among its prompt's: `slots` (R, S) are row numbers, 0 where a prompt has fewer."""
        counts = self.rows.bincount(minlength=len(self.layers[0][0]))
        most = int(counts.max())
        nth = torch.arange(len(self.rows), device=self.rows.device) - (counts.cumsum(0) - counts)[self.rows]
        self.slots = torch.zeros(len(counts), most, dtype=torch.long, device=self.rows.device)
        self.slots[self.rows, nth] = torch.arange(len(self.rows), device=self.rows.device)
        self.even = bool((counts == most).all())
        self.place = self.rows * most + nth

    def grouped(self, rows_BHGX: Tensor) -> Tensor:
        """Rows beside those of the same prompt: (B, H, G, X) → (R, H, S·G, X)."""
        heads, queries, width = rows_BHGX.shape[1:]
        shape = *self.slots.shape, heads, queries, width
        by_prompt = rows_BHGX.view(shape) if self.even else rows_BHGX[self.slots.to(rows_BHGX.device)]
        return by_prompt.transpose(1, 2).reshape(len(self.slots), heads, -1, width)

    def flat(self, grouped_RHQX: Tensor, queries: int) -> Tensor:
        """The inverse of `grouped`: (R, H, S·G, X) → (B, H, G, X)."""
        prompts, heads, _, width = grouped_RHQX.shape
        rows = grouped_RHQX.view(prompts, heads, -1, queries, width).transpose(1, 2)
        rows = rows.reshape(-1, heads, queries, width)
        return rows if self.even else rows[self.place.to(rows.device)]


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float, shared_prompts: SharedPrompts, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of one new token a row: query (B, H·G, 1, D), own keys and values (B, H, T, D) → (B, 1, H·G, D)."""
    keys_RHPD, values_RHPD = shared_prompts.layers[module.layer_idx]
    rows, heads, size = len(query), key.shape[1], query.shape[-1]
    query_BHGD = query.reshape(rows, heads, -1, size) * scaling
    queries, prompt_length = query_BHGD.shape[2], keys_RHPD.shape[2]
    asked_RHQP = shared_prompts.grouped(query_BHGD) @ keys_RHPD.transpose(-1, -2)
    if shared_prompts.padded is not None:
        padded_RP = shared_prompts.padded.to(query.device)
        asked_RHQP = asked_RHQP.masked_fill(padded_RP[:, None, None], -torch.inf)
    own_BHGT = query_BHGD @ key.transpose(-1, -2)
    scores = torch.cat([asked_RHQP, shared_prompts.grouped(own_BHGT)], dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    said_RHQD = weights[..., :prompt_length] @ values_RHPD
    own_weights_BHGT = shared_prompts.flat(weights[..., prompt_length:].contiguous(), queries)
    said_BHGD = shared_prompts.flat(said_RHQD, queries) + own_weights_BHGT @ value
    return said_BHGD.reshape(rows, 1, -1, size), None


AttentionInterface.register(ATTENTION, attend)
