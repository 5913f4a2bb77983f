"""The paper's layout of a ranked list (P 4.1.2): the prompt and all its answers in one row, in random order.

"An approximation to the standard scenario of putting the responses in separate rows": the mask is plainly causal, so an
answer sees those before it, and which come before is shuffled. The loss is that of separate rows (`reward.train`), over
scores that are read at each answer's own end of turn. Only training has it; scores are always those of single answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.lists import AnswerList, batches, pad_rows
from posttrain.errors import UserError
from posttrain.train.batches import Listed, idle


@dataclass(frozen=True)
class Row:
    """A list as one row: its ids, and where each answer, in the list's own order, has its last token."""

    ids: list[int]
    ends: list[int]


def row_of(answers: AnswerList, rng: Random) -> Row:
    """The prompt, then the answers in an order drawn by `rng`, each with its end of turn."""
    order = rng.sample(range(len(answers.answers)), len(answers.answers))
    lengths = [len(answers.answers[number]) for number in order]
    ends = dict(zip(order, accumulate(lengths, initial=len(answers.prompt) - 1), strict=False))
    ids = [*answers.prompt, *(token for number in order for token in answers.answers[number])]
    return Row(ids, [ends[number] + len(answers.answers[number]) for number in range(len(order))])


def rows_of(lists: Sequence[Listed], rng: Random, room: int) -> list[Row]:
    """A row for each list. Raises UserError where one is longer than the model's context."""
    rows = [row_of(item.answers, rng) for item in lists]
    longest = max(len(row.ids) for row in rows)
    if longest > room:
        raise UserError(
            f"a prompt with all its answers has {longest:,} tokens and the model takes {room:,}; train with one_row: "
            "false, or on fewer answers a prompt"
        )
    return rows


@dataclass(frozen=True)
class OneRowCollator:
    """A process's items of a global batch → its micro-batches, `{"parts": [...]}`, as `ListCollator` makes them.

    Each has `input_ids` (B, T), padded on the right; `ends` (N, 2), of every answer its row and the place of its last
    token; and `pairs`, `margins` and `tokens` as there.
    """

    lists: Sequence[Listed]
    rows: Sequence[Row]
    pad_id: int
    limit: int

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, list[dict[str, Tensor]]]:
        numbers = [item["item"] for item in items if item["item"] < len(self.lists)]
        parts = self._parts(numbers or [0])
        return {"parts": parts if numbers else [idle(parts[0])]}

    def _parts(self, numbers: list[int]) -> list[dict[str, Tensor]]:
        ids = [self.rows[number].ids for number in numbers]
        cut = batches([AnswerList(own[:-1], [own[-1:]]) for own in ids], self.limit, can_share=False)
        return [self._batch([numbers[place] for place in places]) for places in cut]

    def _batch(self, numbers: list[int]) -> dict[str, Tensor]:
        rows, lists = [self.rows[number] for number in numbers], [self.lists[number] for number in numbers]
        starts = accumulate((len(row.ends) for row in rows), initial=0)
        pairs = [(start + a, start + b) for start, item in zip(starts, lists, strict=False) for a, b in item.pairs]
        batch = {
            "input_ids": pad_rows([row.ids for row in rows], self.pad_id),
            "ends": torch.tensor([(place, end) for place, row in enumerate(rows) for end in row.ends]),
            "pairs": torch.tensor(pairs),
            "tokens": torch.tensor(sum(len(row.ids) for row in rows)),
        }
        margins = [margin for item in lists for margin in item.margins]
        return batch | ({"margins": torch.tensor(margins)} if margins else {})


def one_row_rewards(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The score at the last token of each answer, shape (N), in float32; gradients flow.

    A sequence classifier gives out the last token's score only, so the scores of all are taken where its head makes
    them: the model itself is called, as those that wrap it (DDP, FSDP) need.
    """
    with _scores_of_all(getattr(model, "module", model)) as found:
        model(input_ids=batch["input_ids"], use_cache=False)
    rows_N, ends_N = batch["ends"].unbind(1)
    scores: Tensor = found[0][rows_N, ends_N, 0].float()
    return scores


@contextmanager
def _scores_of_all(classifier: Any) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    hook = classifier.score.register_forward_hook(lambda module, given, made: found.append(made))
    try:
        yield found
    finally:
        hook.remove()
