"""Prompts computed once: prefill a batch of them and give each its rows of a cache with room to go on.

Letters in shapes: R prompts, B rows (each prompt's samples or responses side by side), H key heads, P padded prompt
length, T tokens so far, D head size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    buffer[:, :, : part.shape[2]] = part[rows]
    return buffer


@dataclass
class Prefix:
    """Rows that go on from their prompts.

    `rows` (B,) says which prompt each row began with; `mask` (B, P + room) is 1 where a token may be attended to, None
    where nothing is padded (cheaper); `lengths` (B,) are the prompts' own; `output` is what the model said of them.
    """

    output: Any
    cache: Cache
    rows: Tensor
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
    """Prompts that went through the model once, left-padded: what it said, their cache, their lengths (R,), and where
    they are padded (R, P), None where nothing is."""

    output: Any
    cache: Cache
    lengths: Tensor
    padded: Tensor | None


def compute(model: Any, prompts: Sequence[list[int]], pad_id: int) -> Computed:
    """Run the prompts; of the logits only those after the last token are made."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    positions = torch.arange(longest, device=model.device) - (longest - lengths)[:, None]
    padded = positions < 0 if any(len(p) < longest for p in prompts) else None
    cache = DynamicCache()
    output = model(
        input_ids=ids, attention_mask=None if padded is None else (~padded).long(),
        position_ids=positions.clamp(min=0), past_key_values=cache, use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    return Computed(output, cache, lengths, padded)


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
    return Prefix(computed.output, Cache(layers=layers), rows, computed.lengths[rows], mask)
