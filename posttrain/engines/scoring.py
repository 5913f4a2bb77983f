"""Rewards of several answers to one prompt, the prompt computed once (forward only).

Equal to separate rows: an answer's tokens attend to the prompt's cache and to themselves, at the same positions.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from posttrain.data.rows import Message, Tool
from posttrain.engines.loading import Loaded
from posttrain.engines.prefix import prefill
from posttrain.errors import UserError


def split_answers(
    loaded: Loaded, messages: Sequence[Message], tools: Sequence[Tool], answers: Sequence[Message]
) -> tuple[list[int], list[list[int]]]:
    """Prompt ids, and for each answer the ids that follow them, the end-of-turn token last.

    Raises UserError when a whole conversation is longer than the model's positions.
    """
    prompt = loaded.renderer.prompt(messages, tools)
    tails = [loaded.renderer.conversation([*messages, answer], tools).ids[len(prompt) :] for answer in answers]
    longest, limit = len(prompt) + max(map(len, tails)), loaded.model.config.max_position_embeddings
    if longest > limit:
        raise UserError(f"a conversation has {longest:,} tokens but the model {limit:,} positions; use shorter prompts")
    return prompt, tails


def rewards(
    loaded: Loaded, conversations: Sequence[tuple[list[int], list[list[int]]]], batch_tokens: int
) -> list[list[float]]:
    """The reward at the last token of each answer, for `(prompt ids, answers' ids)` each with one answer at least.

    Conversations of similar length run together, within `batch_tokens` padded tokens but one prompt at least.
    """
    order = sorted(range(len(conversations)), key=lambda i: (len(conversations[i][0]), i))
    values: dict[int, list[float]] = {}
    batch: list[int] = []
    for place, i in enumerate(order):
        batch.append(i)
        ahead = order[place + 1 : place + 2]
        if not ahead or _slots([conversations[j] for j in (*batch, *ahead)]) > batch_tokens:
            for j, found in zip(batch, _batch_rewards(loaded, [conversations[j] for j in batch]), strict=True):
                values[j] = found
            batch = []
    return [values[i] for i in range(len(conversations))]


def _slots(conversations: Sequence[tuple[list[int], list[list[int]]]]) -> int:
    """Rows times padded tokens of a batch."""
    tails = [tail for _, group in conversations for tail in group]
    return len(tails) * (max(len(prompt) for prompt, _ in conversations) + max(map(len, tails)))


@torch.inference_mode()
def _batch_rewards(loaded: Loaded, conversations: Sequence[tuple[list[int], list[list[int]]]]) -> list[list[float]]:
    """One prefill over the prompts and one forward over all answers, right-padded over the prompts' cache."""
    tails = [tail for _, group in conversations for tail in group]
    longest, copies = max(map(len, tails)), [len(group) for _, group in conversations]
    device, pad_id = loaded.device, loaded.renderer.pad_id
    backbone = loaded.model.base_model
    prefix = prefill(backbone, [prompt for prompt, _ in conversations], copies, longest, pad_id, device)
    ids_BT = torch.tensor([tail + [pad_id] * (longest - len(tail)) for tail in tails], device=device)
    ends_B = torch.tensor([len(tail) - 1 for tail in tails], device=device)
    positions_BT = prefix.lengths[:, None] + torch.arange(longest, device=device)
    hidden_BTH: Tensor = prefix.go_on(backbone, ids_BT, positions_BT).last_hidden_state
    last_BH = hidden_BTH[torch.arange(len(tails), device=device), ends_B]
    flat = loaded.model.score(last_BH)[:, 0].float().tolist()
    return [flat[end - count : end] for end, count in zip(accumulate(copies), copies, strict=True)]
