"""Rows, pairs and lists of answers as token ids and masks, and the order and shape in which they reach the model.

Letters in shapes: B rows, T padded tokens, N tokens whose log-probability is wanted.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Sampler

from posttrain.chat import FORMAT, Rendered, Renderer, Train
from posttrain.data.rows import Message, Pair, Row
from posttrain.engines.lists import AnswerList, batches, collate, pad_rows, padded
from posttrain.errors import UserError
from posttrain.train.head import in_pieces, logprobs_of

IGNORED = -100
"""The label of a token that is not trained (torch's cross entropy)."""
MASKED = 2_048
"""Longest padded row whose padding is masked."""


def render_row(renderer: Renderer, row: Row, train: Train = "last") -> dict[str, Any]:
    """`input_ids` and `labels`: the assistant turns that `train` names are trained, each with its end-of-turn token."""
    rendered = _of_row(row.id, lambda: renderer.conversation(row.messages, row.tools, train))
    labels = [token if mask else IGNORED for token, mask in zip(rendered.ids, rendered.mask, strict=True)]
    return {"id": row.id, "input_ids": rendered.ids, "labels": labels}


def render_pair(renderer: Renderer, pair: Pair) -> dict[str, Any]:
    """`chosen_ids`, `rejected_ids` (prompt and answer) and their masks as the renderer gives them: of an answer that
    took several messages, all that the assistant said is trained, and results of tools are not."""

    def render(answer: Sequence[Message]) -> Rendered:
        return _of_row(pair.id, lambda: renderer.conversation((*pair.prompt, *answer), pair.tools))

    chosen, rejected = map(render, pair.sides)
    return {
        "id": pair.id, "chosen_ids": chosen.ids, "chosen_mask": chosen.mask,
        "rejected_ids": rejected.ids, "rejected_mask": rejected.mask,
    }  # fmt: skip


def _of_row(row_id: str, render: Callable[[], Rendered]) -> Rendered:
    try:
        return render()
    except UserError as error:
        raise UserError(f"row {row_id}: {error}") from error


def length(example: dict[str, Any]) -> int:
    """Tokens of a rendered row, or of the longer answer's row of a rendered pair."""
    if "input_ids" in example:
        return len(example["input_ids"])
    return max(len(example["chosen_ids"]), len(example["rejected_ids"]))


class GlobalBatches(Sampler[int]):
    """Item numbers, shuffled by seed and epoch and cut into global batches; in each the longest come first.

    Which items a step sees depends neither on length nor on the micro-batch. Of several `processes` each takes the
    next items in turn, so that all have about as much to do; a last batch that is smaller is filled up with the number
    after the last item, which stands for none. With `copies`, so many processes after each other take the same items.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, processes: int = 1, copies: int = 1):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.processes, self.copies = processes, copies
        self.epoch = 0

    def __len__(self) -> int:
        count = len(self.lengths)
        filled = count if self.processes * self.copies == 1 else -(-count // self.batch_size) * self.batch_size
        return filled * self.copies

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        for start in range(0, len(order), self.batch_size):
            batch = sorted(order[start : start + self.batch_size], key=lambda i: (-self.lengths[i], i))
            if self.processes * self.copies > 1:
                batch += [len(order)] * (self.batch_size - len(batch))
            for process in range(self.processes * self.copies):
                yield from batch[process // self.copies :: self.processes]

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each pass."""
        self.epoch = epoch


@dataclass(frozen=True)
class Listed:
    """A prompt's distinct answers, and which is better than which.

    `pairs` holds numbers of answers, the better one first, and `places` the example each came from. `margins` and
    `kinds`, the numbers of their capabilities, belong to the pairs, and `reference`, the reference model's summed
    log-probabilities in nats, to the answers, where used.
    """

    answers: AnswerList
    pairs: list[tuple[int, int]]
    places: list[int]
    margins: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)


def lists_of(examples: Sequence[dict[str, Any]]) -> list[Listed]:
    """Rendered pairs by prompt, prompts in the order they first come; each answer and each comparison stands once.

    Nothing is added to what the pairs say: that an edited answer beats the rejected one is a pair of its own.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place, example in enumerate(examples):
        prompt = example["chosen_ids"][: prompt_length(example["chosen_mask"])]
        by_prompt.setdefault(tuple(prompt), []).append(place)
    return [_listed(list(prompt), places, examples) for prompt, places in by_prompt.items()]


def _listed(prompt: list[int], places: list[int], examples: Sequence[dict[str, Any]]) -> Listed:
    masks: dict[tuple[int, ...], list[int]] = {}
    pairs: dict[tuple[int, int], int] = {}
    for place in places:
        two = []
        for side in ("chosen", "rejected"):
            ids, mask = (examples[place][f"{side}_{part}"][len(prompt) :] for part in ("ids", "mask"))
            masks.setdefault(tuple(ids), mask)
            two.append(list(masks).index(tuple(ids)))
        pairs.setdefault((two[0], two[1]), place)
    answers = AnswerList(prompt, [list(ids) for ids in masks], list(masks.values()))
    return Listed(answers, list(pairs), list(pairs.values()))


def prompt_length(mask: Sequence[int]) -> int:
    """Tokens before the trained answer."""
    return next(i for i, value in enumerate(mask) if value)


def list_batches(
    lists: Sequence[Listed], pad_id: int, limit: int, can_share: bool, kept: int
) -> list[tuple[list[int], dict[str, Tensor]]]:
    """The lists in batches of at most `limit` tokens (see `posttrain.engines.lists`): their numbers, and the tensors.

    Each holds what `list_batch` says.
    """
    cut = batches([item.answers for item in lists], limit, can_share, kept)
    return [(numbers, list_batch([lists[i] for i in numbers], pad_id, can_share, kept)) for numbers in cut]


def list_batch(lists: Sequence[Listed], pad_id: int, can_share: bool, kept: int) -> dict[str, Tensor]:
    """One batch of the lists. Beside the tensors of `collate`: `pairs` (N, 2) holds rows, the better one first,
    `margins` and `kinds` (N) and `reference` (B) what the lists carry, and `tokens` the real tokens of the batch."""
    starts = list(accumulate((len(item.answers.answers) for item in lists), initial=0))
    rows = [(start + a, start + b) for start, item in zip(starts, lists, strict=False) for a, b in item.pairs]
    batch = collate([item.answers for item in lists], pad_id, can_share, kept)
    batch["pairs"] = torch.tensor(rows)
    batch["tokens"] = torch.tensor(sum(item.answers.tokens for item in lists))
    for name in ("margins", "kinds", "reference"):
        values = [value for item in lists for value in getattr(item, name)]
        if values:
            batch[name] = torch.tensor(values)
    return batch


@dataclass(frozen=True)
class ListCollator:
    """A process's items of a global batch, `{"item": number of a list}` → its micro-batches, `{"parts": [...]}`."""

    lists: Sequence[Listed]
    pad_id: int
    limit: int
    can_share: bool
    kept: int
    """Tokens of a shared prompt that stand with its answers: 1 where tokens are predicted, 0 where rows are scored."""
    together: bool = False
    """Whether a step is one micro-batch, for a loss that looks at all of its pairs at once."""

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, list[dict[str, Tensor]]]:
        own = [self.lists[item["item"]] for item in items if item["item"] < len(self.lists)]
        parts = self._parts(own or self.lists[:1])
        return {"parts": parts if own else [idle(parts[0])]}

    def _parts(self, lists: Sequence[Listed]) -> list[dict[str, Tensor]]:
        if self.together:
            return [list_batch(lists, self.pad_id, self.can_share, self.kept)]
        return [batch for _, batch in list_batches(lists, self.pad_id, self.limit, self.can_share, self.kept)]


def idle(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """A micro-batch whose loss is a sum over nothing, for a process that has fewer than the others."""
    none = {"tokens": torch.zeros_like(part["tokens"])}
    none |= {name: part[name][:0] for name in ("pairs", "margins", "kinds") if name in part}
    if "labels" in part:
        none["labels"] = torch.full_like(part["labels"], IGNORED)
    # A copy, because ring attention cuts tensors in place.
    return {name: value.clone() for name, value in part.items()} | none


@dataclass(frozen=True)
class RowCollator:
    """A process's items of a global batch, `{"item": number of a row}` → its micro-batches, `{"parts": [...]}`.

    Each holds rows padded to one length, `input_ids`, `labels` and, for short ones, `attention_mask` (B, T), or with
    `packing` a sequence of whole rows, `input_ids`, `position_ids`, `labels` (1, T); and `tokens`, how many are real.
    """

    rows: Sequence[dict[str, Any]]
    pad_id: int
    limit: int
    packing: int = 0

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, list[dict[str, Tensor]]]:
        own = [self.rows[item["item"]] for item in items if item["item"] < len(self.rows)]
        parts = self._packs(own or self.rows[:1]) if self.packing else self._padded(own or self.rows[:1])
        return {"parts": parts if own else [idle(parts[0])]}

    def _padded(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        ids = [row["input_ids"] for row in rows]
        cut = batches([AnswerList(own[:-1], [own[-1:]]) for own in ids], self.limit, can_share=False)
        return [self._pad([rows[i] for i in numbers]) for numbers in cut]

    def _pad(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        padded_ids = pad_rows(ids, self.pad_id)
        # Padding stands on the right, where no token of a row sees it; a mask of its own would be T × T.
        masked = padded_ids.shape[1] <= MASKED
        return {
            "input_ids": padded_ids,
            **({"attention_mask": pad_rows([[1] * len(own) for own in ids], 0)} if masked else {}),
            "labels": pad_rows([row["labels"] for row in rows], IGNORED),
            "tokens": torch.tensor(sum(map(len, ids))),
        }

    def _packs(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        bins = best_fit([len(row["input_ids"]) for row in rows], self.packing)
        return [pack([rows[i] for i in numbers], self.pad_id) for numbers in bins]


def pack(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Rows one after another as one sequence (1, T). Positions begin anew with each, which is what transformers tells
    documents apart by: none sees another. The padding at the end is a document of its own."""
    ids = [token for row in rows for token in row["input_ids"]]
    labels = [label for row in rows for label in row["labels"]]
    positions = [place for row in rows for place in range(len(row["input_ids"]))]
    rest = padded(len(ids)) - len(ids)
    return {
        "input_ids": torch.tensor([ids + [pad_id] * rest]),
        "position_ids": torch.tensor([[*positions, *range(rest)]]),
        "labels": torch.tensor([labels + [IGNORED] * rest]),
        "tokens": torch.tensor(len(ids)),
    }


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Item numbers in bins of at most `capacity` together: the longest first, each into the fullest bin that takes it.

    An item above the capacity has a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # of each bin what is left, sorted, and its number
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(room, (lengths[item], -1))
        left, number = room.pop(place) if place < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        insort(room, (max(0, left - lengths[item]), number))
    return bins


def preference_mask(mask_BT: Tensor, mask_format_tokens: bool) -> Tensor:
    """Which tokens the preference term counts, by the renderer's mask: the answer's, without or with format tokens."""
    return (mask_BT > 0) & (mask_BT != FORMAT) if mask_format_tokens else mask_BT > 0


def token_logprobs(model: Any, inputs: dict[str, Any], wanted_BT: Tensor) -> Tensor:
    """Log-probability in nats of each token given those before it, shape (B, T); 0 where not `wanted`.

    `inputs` are the forward pass's, with `input_ids` (B, T).
    """
    labels_BT = inputs["input_ids"].masked_fill(~wanted_BT.bool(), IGNORED)
    return pad(next_logprobs(model, inputs, pad(labels_BT[:, 1:], (0, 1), value=IGNORED))[:, :-1], (1, 0))


def next_logprobs(model: Any, inputs: dict[str, Any], labels_BT: Tensor) -> Tensor:
    """Log-probability in nats of `labels` (B, T) as the token after each position, shape (B, T); 0 where IGNORED.

    Only positions with a label go through the output layer, and their logits never exist whole where they are many: on
    CUDA TRL's fused head, which `model` must carry, runs in tiles.
    """
    if labels_BT.is_cuda:
        found: Tensor = model(**inputs, labels=labels_BT, shift_labels=labels_BT, fused_lm_head=True).log_probs
        return found.to(labels_BT.device)  # of a model over several devices the head is on the last
    keep_BT = labels_BT != IGNORED
    targets_N = labels_BT[keep_BT]
    with in_pieces(model, targets_N) as pieces:
        logits = model(**inputs, logits_to_keep=keep_BT).logits
    found_N = logits if pieces else logprobs_of(logits, targets_N)
    return torch.zeros(labels_BT.shape, dtype=found_N.dtype, device=found_N.device).masked_scatter(keep_BT, found_N)
