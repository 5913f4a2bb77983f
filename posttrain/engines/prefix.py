"""Prompts computed once: prefill a batch of them and give each its rows of a cache with room to go on.

Letters in shapes: R prompts, B rows (each prompt's samples or responses side by side), H key heads, P padded prompt
length, T tokens so far, D head size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Layer = tuple[Tensor, Tensor]
"""Keys and values."""
Side = Literal["left", "right"]
PIECE_TOKENS = 2048
"""Tokens of prompts in one pass. With the tiny models on a CPU passes of 32,768 take twice as long, since what a layer
makes no longer fits its cache; an accelerator is busy with as many."""
SHARED_PART = 0.25
"""Of the longest prompt, what all must have in common to be run once: masked attention costs about a quarter more."""


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
    """Prompts that went through the model once, all but their last ids (R,): the keys and values (R, H, P, D) of each
    layer, how many ids that is of each (R,), and where they are padded (R, P), None where nothing is."""

    layers: list[Layer]
    last: Tensor
    lengths: Tensor
    padded: Tensor | None


def compute(model: Any, prompts: Sequence[list[int]], pad_id: int, side: Side) -> Computed:
    """Run prompts of two ids or more up to their last one, whose logits the first step makes.

    Padded on the right no mask is needed, which halves the attention's work: no real token comes after padding. There,
    what all prompts begin with (a system message, tools, examples) is run once where that pays. Padded on the left what
    goes on stands beside its prompt, as layers that see a window of tokens want it.
    """
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
    padded = ~_real(lengths, side)
    filling = Filling(len(prompts), padded.shape[1], side)
    begin = common_ids(prompts) if side == "right" else 0
    if begin:
        filling.rows = slice(None)
        _run(model, [prompts[0][:begin]], pad_id, filling)
        filling.begun = begin
    for start, end in pieces([len(prompt) - 1 - begin for prompt in prompts]):
        filling.rows = slice(start, end)
        _run(model, [prompt[begin:-1] for prompt in prompts[start:end]], pad_id, filling)
    last = torch.tensor([prompt[-1] for prompt in prompts], device=model.device)
    return Computed(filling.layers, last, lengths, padded if padded.any() else None)


def common_ids(prompts: Sequence[list[int]]) -> int:
    """How many ids all prompts begin with, two short of the shortest at most; 0 where running them once costs more than
    it saves, since what comes after them then needs a mask."""
    most = min(map(len, prompts)) - 2
    pairs = zip(min(prompts), max(prompts), strict=False)  # in order, so those between them begin so too
    same = min(most, next((place for place, (one, two) in enumerate(pairs) if one != two), most))
    return same if len(prompts) > 1 and same >= SHARED_PART * max(map(len, prompts)) else 0


def pieces(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each pass begins and ends: PIECE_TOKENS tokens at most, padding included, but one prompt at least."""
    start = longest = 0
    for place, length in enumerate(lengths):
        if place > start and max(longest, length) * (place + 1 - start) > PIECE_TOKENS:
            yield start, place
            start, longest = place, 0
        longest = max(longest, length)
    yield start, len(lengths)


def _run(model: Any, prompts: Sequence[list[int]], pad_id: int, filling: "Filling") -> None:
    """One pass over ids that fills the rows `filling.rows`; what it says is not wanted."""
    lengths = torch.tensor(list(map(len, prompts)), device=model.device)
    real = _real(lengths, filling.side)
    ids = torch.full(real.shape, pad_id, device=model.device)
    ids[real] = torch.tensor([token for prompt in prompts for token in prompt], device=model.device)
    mask = {}
    if filling.side == "left" and not real.all():
        mask = {"attention_mask": real.long(), "position_ids": (real.cumsum(1) - 1).clamp(min=0)}
    model(input_ids=ids, past_key_values=filling.cache, use_cache=True, logits_to_keep=1, **mask)


def _real(lengths: Tensor, side: Side) -> Tensor:
    """Where rows of these lengths have a token, (R, P)."""
    real = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    return real if side == "right" else real.flip(1)


class Filling:
    """Buffers (R, H, P, D) for the keys and values of all prompts, which passes over some of them write into.

    `rows` are those of the next pass; `begun` ids stand before them already, the same in every row.
    """

    def __init__(self, prompts: int, length: int, side: Side):
        self.prompts, self.length, self.side = prompts, length, side
        self.rows, self.begun = slice(0, prompts), 0
        self.cache = Cache(layer_class_to_replicate=partial(FillingLayer, self))

    @property
    def layers(self) -> list[Layer]:
        return [(layer.keys, layer.values) for layer in self.cache.layers]

    def write(self, buffer_RHPD: Tensor, new_rHTD: Tensor) -> Tensor:
        """Put what a pass made in its place, zeros where its rows have no token; returns what its rows attend to."""
        whole, tokens = buffer_RHPD[self.rows], new_rHTD.shape[2]
        begin = self.begun if self.side == "right" else self.length - tokens
        whole[:, :, begin : begin + tokens] = new_rHTD
        whole[:, :, begin + tokens :] = 0
        whole[:, :, self.begun : begin] = 0
        return whole[:, :, : begin + tokens] if self.begun else new_rHTD


class FillingLayer(DynamicLayer):
    """One layer of a `Filling`."""

    def __init__(self, filling: Filling):
        super().__init__()
        self._filling = filling

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        rows, length = self._filling.prompts, self._filling.length
        self.keys, self.values = (
            part.new_empty((rows, part.shape[1], length, part.shape[3])) for part in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._filling.write(self.keys, key_states), self._filling.write(self.values, value_states)

    def get_seq_length(self) -> int:
        return self._filling.begun


def rows_of(copies: Sequence[int], device: torch.device) -> Tensor:
    """The prompt of each row, (B,), where prompt r has `copies[r]` rows side by side."""
    counts = torch.tensor(copies, device=device)
    return torch.arange(len(copies), device=device).repeat_interleave(counts)


def unshared(computed: Computed, rows: Tensor, room: int) -> Prefix:
    """A copy of its prompt's cache for each row, with room for `room` more tokens."""
    layers = [RoomyLayer(keys, values, rows, room) for keys, values in computed.layers]
    mask = None
    if computed.padded is not None:
        mask = torch.nn.functional.pad((~computed.padded).long(), (0, room), value=1)[rows]
    return Prefix(Cache(layers=layers), rows, computed.last[rows], computed.lengths[rows], mask)
