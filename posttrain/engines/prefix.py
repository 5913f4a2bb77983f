"""Prompts computed once: prefill a batch of them and give each its rows of a cache with room to go on.

Letters in shapes: R prompts, B rows (each prompt's samples or responses side by side), H key heads, P padded prompt
length, T tokens so far, D head size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in buffers allocated once: a step copies its own tokens, not the whole cache."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, room: int):
        """Take `rows` (B,) of the (R, H, P, D) prompt keys and values, with room for `room` more tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room_BHTD = [_with_room(part, rows, keys.shape[-2] + room) for part in (keys, values)]
        self._show(keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, new in zip(self._room_BHTD, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Leave only `rows` (their numbers) in the batch."""
        length = self.get_seq_length()
        self._room_BHTD = [_with_room(room[:, :, :length], rows, room.shape[-2]) for room in self._room_BHTD]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (room[:, :, :length] for room in self._room_BHTD)


def _with_room(part: Tensor, rows: Tensor, length: int) -> Tensor:
    buffer = part.new_empty((len(rows), part.shape[1], length, part.shape[3]))
    buffer[:, :, : part.shape[2]] = part[rows.to(part.device)]
    return buffer


@dataclass
class Prefix:
    """Rows that go on from their prompts.

    `rows` (B,) says which prompt each row began with, `last` (B,) are the prompts' last ids, which stand in no cache
    yet, `lengths` (B,) count the ids before; `mask` (B, P + room) is 1 where a token may be attended to, None where
    nothing is padded (cheaper).
    """

    cache: Cache
    rows: Tensor
    last: Tensor
    lengths: Tensor
    mask: Tensor | None

    def go_on(self, run: Callable[..., Any], ids: Tensor, positions: Tensor) -> Any:
        """What the model says of the next ids (B, N) of every row; they become part of the cache."""
        end = self.cache.get_seq_length() + ids.shape[1]
        mask = None if self.mask is None else self.mask[:, :end]
        return run(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        )

    def keep(self, places: Tensor) -> None:
        """Leave only the rows at `places` in the batch."""
        for layer in self.cache.layers:
            layer.keep(places)
        self.rows, self.lengths = self.rows[places], self.lengths[places]
        self.mask = None if self.mask is None else self.mask[places]


@dataclass
class Computed:
    """Prompts that went through the model once, all but their last ids (R,): their cache, how many ids that is of each
    (R,), and where they are padded (R, P), None where nothing is."""

    cache: Cache
    last: Tensor
    lengths: Tensor
    padded: Tensor | None


def compute(model: Any, prompts: Sequence[list[int]], pad_id: int, side: Literal["left", "right"]) -> Computed:
    """Run prompts of two ids or more up to their last one, whose logits the first step makes.

    Padded on the right no mask is needed, which halves the attention's work: no real token comes after padding. Padded
    on the left what goes on stands beside its prompt, as layers that see a window of tokens want it.
    """
    device, longest = model.device, max(map(len, prompts)) - 1
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    padding = [[pad_id] * (longest + 1 - len(prompt)) for prompt in prompts]
    cache, mask = DynamicCache(), {}
    if side == "right":
        rows = [prompt[:-1] + pads for prompt, pads in zip(prompts, padding, strict=True)]
        padded = torch.arange(longest, device=device) >= lengths[:, None]
    else:
        rows = [pads + prompt[:-1] for prompt, pads in zip(prompts, padding, strict=True)]
        positions = torch.arange(longest, device=device) - (longest - lengths)[:, None]
        padded = positions < 0
        mask = {"attention_mask": (~padded).long() if padded.any() else None, "position_ids": positions.clamp(min=0)}
    ids = torch.tensor(rows, device=device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **mask)
    last = torch.tensor([prompt[-1] for prompt in prompts], device=device)
    return Computed(cache, last, lengths, padded if padded.any() else None)


def rows_of(copies: Sequence[int], device: torch.device) -> Tensor:
    """The prompt of each row, (B,), where prompt r has `copies[r]` rows side by side."""
    counts = torch.tensor(copies, device=device)
    return torch.arange(len(copies), device=device).repeat_interleave(counts)


def unshared(computed: Computed, rows: Tensor, room: int) -> Prefix:
    """A copy of its prompt's cache for each row, with room for `room` more tokens."""
    layers = [RoomyLayer(layer.keys, layer.values, rows, room) for layer in computed.cache.layers]
    mask = None
    if computed.padded is not None:
        mask = torch.nn.functional.pad((~computed.padded).long(), (0, room), value=1)[rows]
    return Prefix(Cache(layers=layers), rows, computed.last[rows], computed.lengths[rows], mask)
