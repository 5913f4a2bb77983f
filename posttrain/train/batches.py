"""Rows and pairs as token ids and masks, and the order and shape in which they reach the model.

Letters in shapes: B rows, T padded tokens, N tokens whose log-probability is wanted.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import Sampler

from posttrain.chat import FORMAT, Rendered, Renderer
from posttrain.data.rows import Message, Pair, Row
from posttrain.errors import UserError
from posttrain.machine import Machine

IGNORED = -100
"""The label of a token that is not trained (torch's cross entropy)."""
LENGTH_STEP = 16
"""Padded lengths are multiples of this: torch keeps fewer kernels, and tensor cores want multiples of 8."""
NAMED = 3
"""Rows an error names before it says how many more there are."""


def render_row(renderer: Renderer, row: Row) -> dict[str, Any]:
    """`input_ids` and `labels`: the last assistant turn is trained with its end-of-turn token, all else is context."""
    rendered = _of_row(row.id, lambda: renderer.conversation(row.messages, row.tools))
    labels = [token if mask else IGNORED for token, mask in zip(rendered.ids, rendered.mask, strict=True)]
    return {"id": row.id, "input_ids": rendered.ids, "labels": labels}


def render_pair(renderer: Renderer, pair: Pair) -> dict[str, Any]:
    """`chosen_ids`, `rejected_ids` (prompt and answer) and their masks as the renderer gives them."""

    def render(answer: Message) -> Rendered:
        return _of_row(pair.id, lambda: renderer.conversation((*pair.prompt, answer), pair.tools))

    chosen, rejected = render(pair.chosen), render(pair.rejected)
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


def refuse_long(examples: Sequence[dict[str, Any]], limit: int) -> None:
    """Raise UserError naming the rows of more than `limit` tokens; nothing is ever cut."""
    long = [(length(example), example["id"]) for example in examples if length(example) > limit]
    if long:
        named = ", ".join(f"{row_id} ({tokens:,})" for tokens, row_id in long[:NAMED])
        more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
        raise UserError(
            f"{len(long)} of {len(examples)} rows are longer than {limit:,} tokens: {named}{more}; "
            "raise max_length (at most the model's context), or leave these rows out"
        )


def micro_batch(batch_size: int, machine: Machine, rows_each: int = 1) -> int:
    """The largest divisor of `batch_size` whose items, of `rows_each` rows, fit in `machine.micro_batch` rows."""
    most = max(1, machine.micro_batch // rows_each)
    return max(n for n in range(1, min(most, batch_size) + 1) if batch_size % n == 0)


class GlobalBatches(Sampler[int]):
    """Item numbers, shuffled by seed and epoch and cut into global batches; in each the longest come first.

    So the micro-batches of a global batch hold items of similar length and little is padding, while which items
    a step sees depends neither on length nor on the micro-batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda i: (-self.lengths[i], i))

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each pass."""
        self.epoch = epoch


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Right-padded (B, T) tensor; T is a multiple of LENGTH_STEP."""
    longest = -(-max(map(len, rows)) // LENGTH_STEP) * LENGTH_STEP
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


@dataclass(frozen=True)
class PairCollator:
    """Rendered pairs → one batch of 2·B rows: chosen and rejected of each pair side by side.

    Unshared, `input_ids`, `attention_mask` and `mask` (the renderer's) hold whole rows. `shared`, they hold what
    follows a pair's prompt but for its last token, (2B, T), `position_ids` with them, and `prefix_ids` and
    `prefix_mask` (B, P) the rest of the prompts; `attention_mask` is then (2B, P + T). `reference` (B, 2) holds the
    reference model's summed log-probabilities where the pairs carry them.
    """

    pad_id: int
    shared: bool

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        rows = [(pair[f"{side}_ids"], pair[f"{side}_mask"]) for pair in pairs for side in ("chosen", "rejected")]
        # The prompt's last token stays with the answers: it is what the first token of each is predicted from.
        cuts = [prompt_length(mask) - 1 if self.shared else 0 for _, mask in rows]
        batch = {
            "input_ids": pad_rows([ids[cut:] for (ids, _), cut in zip(rows, cuts, strict=True)], self.pad_id),
            "mask": pad_rows([mask[cut:] for (_, mask), cut in zip(rows, cuts, strict=True)], 0),
            "attention_mask": pad_rows([[1] * (len(ids) - cut) for (ids, _), cut in zip(rows, cuts, strict=True)], 0),
        }
        if self.shared:
            prefixes = [ids[:cut] for (ids, _), cut in zip(rows, cuts, strict=True)][::2]
            batch |= self._prefix(prefixes, torch.tensor(cuts), batch["attention_mask"])
        if "reference" in pairs[0]:
            batch["reference"] = torch.tensor([pair["reference"] for pair in pairs])
        return batch

    def _prefix(self, prefixes: list[list[int]], cuts: Tensor, attention: Tensor) -> dict[str, Tensor]:
        """The prompts, right-padded: keys of padding are masked, and positions of the answers go on from `cuts`."""
        mask = pad_rows([[1] * len(ids) for ids in prefixes], 0)
        return {
            "prefix_ids": pad_rows(prefixes, self.pad_id),
            "prefix_mask": mask,
            "attention_mask": torch.cat([mask.repeat_interleave(2, 0), attention], 1),
            "position_ids": cuts[:, None] + torch.arange(attention.shape[1]),
        }


def prompt_length(mask: Sequence[int]) -> int:
    """Tokens before the trained answer."""
    return next(i for i, value in enumerate(mask) if value)


def model_inputs(model: Any, batch: dict[str, Tensor], **prefix_options: Any) -> dict[str, Any]:
    """What a forward pass over the rows of a PairCollator's batch takes; shared prompts are run here, once a pair,
    with `prefix_options`.

    Gradients flow through the cache, and answers do not see each other, so the result equals that of separate rows.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if "prefix_ids" not in batch:
        return {**inputs, "use_cache": False}
    output = model(input_ids=batch["prefix_ids"], attention_mask=batch["prefix_mask"], use_cache=True, **prefix_options)
    cache = output.past_key_values
    cache.batch_repeat_interleave(2)
    return {**inputs, "position_ids": batch["position_ids"], "past_key_values": cache, "use_cache": True}


def preference_mask(mask_BT: Tensor, mask_format_tokens: bool) -> Tensor:
    """Which tokens the preference term counts, by the renderer's mask: the answer's, without or with format tokens."""
    return (mask_BT > 0) & (mask_BT != FORMAT) if mask_format_tokens else mask_BT > 0


def token_logprobs(model: Any, inputs: dict[str, Any], wanted_BT: Tensor) -> Tensor:
    """Log-probability in nats of each token given those before it, shape (B, T); 0 where not `wanted`.

    `inputs` are the forward pass's, with `input_ids` (B, T). Only positions before wanted tokens go through the output
    layer. On CUDA, where TRL's fused head (which `model` must carry) runs in tiles, the logits never exist whole.
    """
    ids_BT, targets = inputs["input_ids"], wanted_BT[:, 1:].bool()
    if ids_BT.is_cuda:
        labels = ids_BT.masked_fill(~wanted_BT.bool(), IGNORED)
        return pad(model(**inputs, labels=labels, fused_lm_head=True).log_probs, (1, 0))
    logits_NV = model(**inputs, logits_to_keep=pad(targets, (0, 1))).logits
    found_N = -cross_entropy(logits_NV.float(), ids_BT[:, 1:][targets], reduction="none")
    whole = torch.zeros(ids_BT.shape, dtype=found_N.dtype, device=found_N.device)
    return whole.masked_scatter(pad(targets, (1, 0)), found_N)
