"""Several answers to one prompt in one pass: the reward model, DPO and its reference all go through here.

Shared, the prompt is computed once and its answers run as a batch over its cache, with gradients; separate, each row
holds prompt and answer. Both give the same numbers, so what costs less is chosen batch by batch.

Letters in shapes: R prompts, B rows (one an answer, those of a prompt side by side), P and T padded tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from posttrain.engines import attention

LENGTH_STEP = 16
"""Padded lengths are multiples of this: torch keeps fewer kernels, and tensor cores want multiples of 8."""
PASS_TOKENS = 128
"""What a pass through the model costs besides its tokens, in tokens: measured with the tiny model on one CPU core."""


@dataclass(frozen=True)
class AnswerList:
    """The ids of a prompt and of the answers that may follow it; neither is empty, no answer is.

    `marks` holds the renderer's mask of each answer, where anybody wants to know.
    """

    prompt: list[int]
    answers: list[list[int]]
    marks: list[list[int]] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return len(self.prompt) + max(map(len, self.answers))

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and of all answers, each counted once."""
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass
class Shape:
    """Of a batch that grows list by list: what it costs in tokens, padding included, in either layout.

    `kept` tokens at a prompt's end stand with its answers where it is shared.
    """

    kept: int = 0
    prompts: int = 0
    rows: int = 0
    prompt: int = 0
    answer: int = 0
    row: int = 0
    shareable: bool = True

    def add(self, item: AnswerList) -> "Shape":
        """The shape with one more list."""
        return Shape(
            self.kept,
            self.prompts + 1,
            self.rows + len(item.answers),
            max(self.prompt, padded(len(item.prompt) - self.kept)),
            max(self.answer, padded(item.longest - len(item.prompt) + self.kept)),
            max(self.row, padded(item.longest)),
            self.shareable and len(item.prompt) > self.kept,
        )

    @property
    def shared(self) -> int:
        return self.prompts * self.prompt + self.rows * self.answer

    @property
    def separate(self) -> int:
        return self.rows * self.row

    def share(self) -> bool:
        """Whether computing prompts once costs less, though it takes a second pass."""
        return self.shareable and self.shared + PASS_TOKENS < self.separate

    def cost(self, can_share: bool) -> int:
        """Tokens computed, passes included."""
        return PASS_TOKENS + (self.shared + PASS_TOKENS if can_share and self.share() else self.separate)


def padded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def batches(lists: Sequence[AnswerList], limit: int, can_share: bool = True, kept: int = 0) -> list[list[int]]:
    """The numbers of the lists, in batches of similar length that cost least together.

    `kept` is as in `collate`. A batch costs at most `limit` tokens, one list at least. Found by dynamic programming
    over the lists by length.
    """
    order = sorted(range(len(lists)), key=lambda i: (lists[i].longest, len(lists[i].prompt), i))
    best: list[tuple[int, int]] = [(0, 0)]  # for each number of lists done: the cost so far, where the batch began
    for end in range(1, len(order) + 1):
        shape, found = Shape(kept), None
        for start in range(end - 1, -1, -1):
            shape = shape.add(lists[order[start]])
            cost = shape.cost(can_share)
            if found and cost > limit:
                break
            total = best[start][0] + cost
            found = min(found, (total, start)) if found else (total, start)
        assert found
        best.append(found)
    cuts, end = [], len(order)
    while end:
        cuts.append(order[best[end][1] : end])
        end = best[end][1]
    return cuts[::-1]


def collate(
    lists: Sequence[AnswerList], pad_id: int, can_share: bool = True, kept: int = 0, force_shared: bool = False
) -> dict[str, Tensor]:
    """The tensors `inputs_of` takes: `input_ids`, `position_ids` and, where the lists have marks, `marks`, each (B, T).

    Separate rows hold prompt and answer. Shared ones hold the answer after the prompt's last `kept` tokens (1 where the
    answer's first token is to be predicted); `prefix_ids` (R, P) hold the rest of the prompts, `prefix_lengths` (R)
    their tokens, `prompt_of` (B) each row's prompt, and `attention_mask` (B, P + T) is 1 where a key is no padding. The
    layout is chosen by cost unless `force_shared`.
    """
    shape = Shape(kept)
    for item in lists:
        shape = shape.add(item)
    share = force_shared or (can_share and shape.share())
    cuts = [len(item.prompt) - kept if share else 0 for item in lists for _ in item.answers]
    whole = [item.prompt + answer for item in lists for answer in item.answers]
    rows = [row[cut:] for row, cut in zip(whole, cuts, strict=True)]
    ids = pad_rows(rows, pad_id)
    batch = {"input_ids": ids, "position_ids": torch.tensor(cuts)[:, None] + torch.arange(ids.shape[1])}
    if all(item.marks for item in lists):
        marks = [mark for item in lists for mark in item.marks or ()]
        batch["marks"] = pad_rows([[0] * (len(r) - len(m)) + m for r, m in zip(rows, marks, strict=True)], 0)
    if share:
        prefixes = [item.prompt[: len(item.prompt) - kept] for item in lists]
        prompt_of = torch.arange(len(lists)).repeat_interleave(torch.tensor([len(item.answers) for item in lists]))
        known = pad_rows([[1] * len(prefix) for prefix in prefixes], 0)
        batch |= {
            "prefix_ids": pad_rows(prefixes, pad_id),
            "prefix_lengths": torch.tensor([len(prefix) for prefix in prefixes]),
            "prompt_of": prompt_of,
            "attention_mask": torch.cat([known[prompt_of], pad_rows([[1] * len(row) for row in rows], 0)], 1),
        }
    return batch


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Right-padded (B, T) tensor; T is a multiple of LENGTH_STEP."""
    longest = padded(max(map(len, rows)))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def inputs_of(model: Any, batch: dict[str, Tensor], **prefix_options: Any) -> dict[str, Any]:
    """What a pass over the rows of a collated batch takes; shared prompts are run here, with `prefix_options`.

    Padding stands on the right and is not masked in whole rows and prompts: no real token comes after it there.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "position_ids")}
    if "prefix_ids" not in batch:
        return {**inputs, "use_cache": False}
    own = getattr(model, "module", model)  # where a trainer has wrapped it
    in_place = attention.use(own)
    output = model(input_ids=batch["prefix_ids"], past_key_values=DynamicCache(), use_cache=True, **prefix_options)
    layers = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
    if in_place:
        ends = batch["prompt_of"].bincount().cumsum(0).tolist()
        spans = list(zip(batch["prefix_lengths"].tolist(), [0, *ends[:-1]], ends, strict=True))
        return {**inputs, "use_cache": False, "answers_of": attention.Prompts(layers, spans)}
    cache = Cache(layers=[PromptLayer(keys, values, batch["prompt_of"]) for keys, values in layers])
    return {**inputs, "attention_mask": batch["attention_mask"], "past_key_values": cache, "use_cache": True}


class PromptLayer(DynamicLayer):
    """One layer's keys and values of R prompts, copied to the B rows that go on from them; gradients flow back.

    For devices and models that `posttrain.engines.attention` does not know.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompt_of: Tensor):
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values, self.prompt_of = keys, values, prompt_of

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = (part.index_select(0, self.prompt_of.to(part.device)) for part in (self.keys, self.values))
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)
