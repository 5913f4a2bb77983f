"""Rewards of several answers to one prompt, the prompt computed once (forward only), and the check that they are right.

The score is the head's value at an answer's last token, the end of its turn.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers.modeling_layers import GenericForSequenceClassification

from posttrain.chat import Renderer
from posttrain.data.rows import Message, Tool
from posttrain.engines.lists import AnswerList, batches, collate, inputs_of
from posttrain.engines.loading import Loaded, load_model
from posttrain.errors import UserError
from posttrain.machine import Machine

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far one score computed in two ways may lie apart, as a share of the larger of 1 and its size."""
CHECKED = 3
"""Prompts, and answers of each, that the self-check looks at: the shortest and the longest are always among them."""


def load_scorer(path: str | Path, machine: Machine) -> Loaded:
    """A reward model: a checkpoint folder or hub name of a one-label classifier on a causal backbone.

    Raises UserError for one that reads in both directions: padding on the right would reach its scores.
    """
    loaded = load_model(path, machine, "reward")
    if not isinstance(loaded.model, GenericForSequenceClassification):
        kind = type(loaded.model).__name__
        raise UserError(f"{path} is a {kind}; name a reward model with a causal backbone, such as Llama's or Qwen's")
    loaded.model.config.get_text_config().pad_token_id = loaded.renderer.pad_id
    return loaded


def answer_list(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[Tool], answers: Sequence[Sequence[Message]]
) -> AnswerList:
    """A prompt and its answers, each one or more messages of which the assistant's is the last, as ids; the end-of-turn
    token is the last."""
    prompt = renderer.prompt(messages, tools)
    tails = [renderer.conversation([*messages, *answer], tools).ids[len(prompt) :] for answer in answers]
    return AnswerList(prompt, tails)


def room(loaded: Loaded) -> int:
    """Tokens of the longest conversation the model can read."""
    config = loaded.model.config.get_text_config()
    return int(config.max_position_embeddings)


@torch.inference_mode()
def rewards(
    loaded: Loaded, lists: Sequence[AnswerList], batch_tokens: int, can_share: bool = True
) -> list[list[float]]:
    """The reward of each answer of each list, in batches that cost at most `batch_tokens` but one list at least."""
    values: dict[int, list[float]] = {}
    for numbers in batches(lists, batch_tokens, can_share):
        batch = collate([lists[i] for i in numbers], loaded.renderer.pad_id, can_share)
        scores = batch_rewards(loaded.model, {name: value.to(loaded.device) for name, value in batch.items()})
        counts = [len(lists[i].answers) for i in numbers]
        values |= {i: own.tolist() for i, own in zip(numbers, scores.split(counts), strict=True)}
    return [values[i] for i in range(len(lists))]


def batch_rewards(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Rewards of the answers of a collated batch, shape (B), in float32; gradients flow."""
    scores: Tensor = model(**inputs_of(model, batch)).logits.float().squeeze(-1)
    return scores


def check_rewards(loaded: Loaded, lists: Sequence[AnswerList], name: str) -> None:
    """Score a few rows in every way there is; raise UserError when two ways differ by more than rounding.

    Alone, in a batch, over a shared prompt, padded on the right and on the left: each must give the value that the head
    has at the last token of the row alone. Each row begins with the tokenizer's BOS and ends with the end of turn.
    """
    if not lists:
        return
    by_length = sorted(lists, key=lambda item: item.longest)
    spread = [by_length[i] for i in sorted({0, len(by_length) // 2, len(by_length) - 1})][:CHECKED]
    chosen = [AnswerList(item.prompt, item.answers[:CHECKED]) for item in spread]
    rows = [item.prompt + answer for item in chosen for answer in item.answers]
    _check_ends(loaded, rows, name)
    alone = [_at_last_token(loaded, row) for row in rows]
    tolerance = TOLERANCE[loaded.model.dtype]
    for way, found in _ways(loaded, chosen, rows):
        for row, expected, value in zip(rows, alone, found, strict=True):
            if not abs(value - expected) <= tolerance * max(1.0, abs(expected)):
                raise UserError(
                    f"{name} gives a row of {len(row)} tokens {expected:.4f} alone and {value:.4f} {way}; such scores "
                    "cannot be compared: use a reward model with a causal backbone, whose padding token ends no turn"
                )


def _check_ends(loaded: Loaded, rows: Sequence[list[int]], name: str) -> None:
    bos = loaded.renderer.tokenizer.bos_token_id
    for row in rows:
        if bos is not None and (row[0] != bos or row.count(bos) != 1):
            raise UserError(f"{name} is to read rows with {row.count(bos)} BOS tokens; mend its chat template to one")
        if row[-1] not in loaded.renderer.stop_ids:
            raise UserError(f"{name} would be read at token {row[-1]}, not at an end of turn; mend its chat template")


@torch.inference_mode()
def _at_last_token(loaded: Loaded, row: Sequence[int]) -> float:
    hidden = loaded.model.base_model(input_ids=torch.tensor([row], device=loaded.device)).last_hidden_state
    return float(loaded.model.score(hidden[:, -1])[0, 0])


def _ways(loaded: Loaded, lists: Sequence[AnswerList], rows: Sequence[list[int]]) -> Iterator[tuple[str, list[float]]]:
    whole = sum(item.tokens for item in lists) * len(rows) + 10_000
    yield "in one batch", _flat(rewards(loaded, lists, whole, can_share=False))
    yield "in small batches", _flat(rewards(loaded, lists, 1))
    yield "over a shared prompt", _flat([_shared(loaded, item) for item in lists])
    yield "padded on the left", _left_padded(loaded, rows)


def _flat(values: Sequence[Sequence[float]]) -> list[float]:
    return [value for own in values for value in own]


@torch.inference_mode()
def _shared(loaded: Loaded, item: AnswerList) -> list[float]:
    batch = collate([item], loaded.renderer.pad_id, force_shared=True)
    found: list[float] = batch_rewards(
        loaded.model, {name: value.to(loaded.device) for name, value in batch.items()}
    ).tolist()
    return found


@torch.inference_mode()
def _left_padded(loaded: Loaded, rows: Sequence[list[int]]) -> list[float]:
    longest = max(map(len, rows))
    ids = torch.tensor([[loaded.renderer.pad_id] * (longest - len(row)) + row for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scores = loaded.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    found: list[float] = scores[:, 0].float().tolist()
    return found


def refuse_nan(values: Sequence[float], name: str, prompt_id: str) -> None:
    """Raise UserError when a score is no number."""
    if not all(map(math.isfinite, values)):
        raise UserError(
            f"{name} gave an answer of prompt {prompt_id} a score that is no number; its weights are broken or its "
            "training diverged: train it again with a lower learning_rate"
        )
