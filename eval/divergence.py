"""How far one checkpoint has moved from another: the Kullback-Leibler divergence along answers, token by token.

At each token of an answer both models say how likely each token of the vocabulary is, given the prompt and the answer
so far; the divergence KL(new || old) of the two is exact there, and is averaged over the answer's tokens. It is not
estimated from the log-probabilities of the tokens that were written: these are greedy, and would not give it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from eval.likelihood import LOGIT_TOKENS, logits_of, whole_answers
from posttrain.checks.intervals import Z
from posttrain.data.rows import Prompt, Response
from posttrain.engines.lists import AnswerList, batches
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import room
from posttrain.errors import UserError
from posttrain.machine import Machine


def divergence(
    new: Path | str, old: Path | str, answered: Sequence[tuple[Prompt, Response]], machine: Machine
) -> list[float]:
    """The mean KL(new || old) a token, in nats, of each answer that is not empty and fits both models; the answers are
    the new model's.

    Raises UserError when the two have not one vocabulary, since then their tokens cannot be compared.
    """
    ours, theirs = load_model(new, machine), load_model(old, machine)
    if ours.renderer.tokenizer.get_vocab() != theirs.renderer.tokenizer.get_vocab():
        raise UserError(f"{new} and {old} have other tokens each, so drift.kl cannot be measured; leave that limit out")
    limit = min(room(ours), room(theirs))
    lists = [answer_ids(ours, prompt, response) for prompt, response in answered if response.text]
    return by_answer(ours, theirs, [item for item in lists if item.longest <= limit], machine.batch_tokens)


def answer_ids(loaded: Loaded, prompt: Prompt, response: Response) -> AnswerList:
    """Prompt and answer as ids, with the end of the turn where the model came to it."""
    end = [loaded.renderer.eot_id] if response.finish == "stop" else []
    text = loaded.renderer.tokenizer.encode(response.text, add_special_tokens=False)
    return AnswerList(loaded.renderer.prompt(prompt.messages, prompt.tools), [[*text, *end]])


@torch.inference_mode()
def by_answer(new: Loaded, old: Loaded, lists: Sequence[AnswerList], batch_tokens: int) -> list[float]:
    """The mean divergence over the tokens of each list's one answer."""
    found: dict[int, float] = {}
    for numbers in batches(lists, min(batch_tokens, LOGIT_TOKENS // 2), kept=1):
        batch = whole_answers(new, [lists[i] for i in numbers])
        marks_BT = batch["marks"][:, 1:]
        kl_BT = kl_by_token(logits_of(new, batch), logits_of(old, batch)) * marks_BT
        means = (kl_BT.sum(1) / marks_BT.sum(1)).tolist()
        found |= dict(zip(numbers, means, strict=True))
    return [found[i] for i in range(len(lists))]


def kl_by_token(new_BTV: Tensor, old_BTV: Tensor) -> Tensor:
    """Σ p·(ln p − ln q) over the vocabulary, (B, T), of logits; tokens that only one of two padded vocabularies has
    are left out."""
    size = min(new_BTV.shape[-1], old_BTV.shape[-1])
    p_BTV, q_BTV = (logits[..., :size].float().log_softmax(-1) for logits in (new_BTV, old_BTV))
    return (p_BTV.exp() * (p_BTV - q_BTV)).sum(-1)


def summed(values: Sequence[float], z: float = Z) -> dict[str, Any]:
    """The mean over answers with its interval, `z` standard errors to each side: a drift from no divergence at all."""
    if len(values) < 2:
        return {"n": len(values), "before": 0.0, "after": sum(values), "change": sum(values), "low": 0.0,
                "high": math.inf, "significant": False}  # fmt: skip
    mean, half = fmean(values), z * stdev(values) / math.sqrt(len(values))
    return {"n": len(values), "before": 0.0, "after": mean, "change": mean, "low": max(0.0, mean - half),
            "high": mean + half, "significant": mean > half}  # fmt: skip
