"""The likelihood of given texts, the prompt computed once for all of one prompt's: multiple choice, and lm-eval."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from eval.suites.choices import CHOICES, LETTERS
from eval.table import Graded
from posttrain.chat import Renderer
from posttrain.data.rows import Message, Prompt, Response, canonical_json
from posttrain.endpoint import Endpoint
from posttrain.engines.lists import AnswerList, batches, collate, inputs_of
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import answer_list, room
from posttrain.errors import UserError
from posttrain.stages import Job

LOGIT_TOKENS = 4096
"""Tokens whose logits are in memory at once: with Llama's vocabulary 2 GB in float32."""


@dataclass(frozen=True)
class Continuation:
    """A text after a conversation, whose last message may be the beginning of the answer (`prefix`)."""

    messages: tuple[Message, ...]
    text: str


@dataclass(frozen=True)
class Found:
    """The summed log-probability of a text in nats, its tokens, and whether greedy decoding would write it."""

    logprob: float
    tokens: int
    greedy: bool


def chosen(job: Job, prompts: list[Prompt]) -> list[Graded]:
    """The choice with the highest log-probability a token, the end of the turn among them; its number is in `parsed`.

    Raises UserError for a model behind an endpoint: servers do not tell the probability of given texts.
    """
    loaded = load_own(job, prompts[0].capability)
    lists = [
        answer_list(
            loaded.renderer, prompt.messages, prompt.tools, [(_says(text),) for text in prompt.made_by[CHOICES]]
        )
        for prompt in prompts
    ]
    values = logprobs(loaded, lists, job.machine.batch_tokens)
    return [_graded(job, *found) for found in zip(prompts, values, strict=True)]


def load_own(job: Job, name: str) -> Loaded:
    """The model's own files, which the likelihood of given texts needs."""
    model = job.inputs["model"]
    if isinstance(model, Endpoint):
        raise UserError(
            f"the suite {name} asks for the likelihood of given texts, which the endpoint of {model.model} cannot say; "
            "set by: letter, take a task that generates, or evaluate the model's own files"
        )
    return load_model(model, job.machine)


def _says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _graded(job: Job, prompt: Prompt, values: list[Found]) -> Graded:
    assert prompt.check is not None
    share = [value.logprob / value.tokens for value in values]
    best = share.index(max(share))
    made_by = {"stage": job.name, "round": job.round, "model": job.name, "by": "likelihood"}
    text = prompt.made_by[CHOICES][best]
    response = Response(prompt.id, best, text, "stop", values[best].tokens, values[best].logprob, made_by)
    right = LETTERS[best] == prompt.check.args["answer"]
    return Graded(prompt, response, float(right), "right" if right else "another choice", LETTERS[best])


def continuations(job: Job, name: str, asks: Sequence[Continuation]) -> list[Found]:
    """What each text has after its conversation, without an end of turn. Raises UserError for a model behind an
    endpoint, and for a conversation that is longer than the model takes."""
    loaded = load_own(job, name)
    by_context: dict[str, list[int]] = {}
    for number, ask in enumerate(asks):
        by_context.setdefault(canonical_json(ask.messages), []).append(number)
    lists = [_list(loaded.renderer, [asks[i] for i in numbers]) for numbers in by_context.values()]
    longest = max(item.longest for item in lists)
    if longest > room(loaded):
        raise UserError(f"the suite {name} has a prompt of {longest:,} tokens; the model takes {room(loaded):,}")
    values = logprobs(loaded, lists, job.machine.batch_tokens)
    found = {
        number: value for numbers, own in zip(by_context.values(), values, strict=True)
        for number, value in zip(numbers, own, strict=True)
    }  # fmt: skip
    return [found[number] for number in range(len(asks))]


def of_texts(job: Job, name: str, texts: Sequence[str]) -> list[Found]:
    """What each text has by itself, after the tokenizer's BOS (EOS where there is none), as perplexity wants it. One
    that is longer than the model takes is read in windows, each but the first after one token of the one before, as
    lm-eval does. Raises UserError for a model behind an endpoint."""
    loaded = load_own(job, name)
    tokenizer = loaded.renderer.tokenizer
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    windows = [_windows([begin, *loaded.renderer.ids(text)], room(loaded)) for text in texts]
    values = iter(logprobs(loaded, [window for own in windows for window in own], job.machine.batch_tokens))
    return [_together([next(values)[0] for _ in own]) for own in windows]


def _windows(ids: Sequence[int], size: int) -> list[AnswerList]:
    """All ids but the first as answers, each once and after one id or more, in windows of at most `size` ids."""
    found, step = [], size - 1
    for start in range(1, len(ids), step):
        end = min(len(ids), start + step)
        context = start if start == 1 else max(1, min(start, size - (end - start)))
        found.append(AnswerList(list(ids[start - context : start]), [list(ids[start:end])]))
    return found


def _together(parts: Sequence[Found]) -> Found:
    return Found(
        sum(part.logprob for part in parts), sum(part.tokens for part in parts), all(part.greedy for part in parts)
    )


def _list(renderer: Renderer, asks: Sequence[Continuation]) -> AnswerList:
    """One conversation's texts as ids. A text that goes on from the beginning of an answer is split after that one's
    own tokens, as lm-eval does."""
    messages = asks[0].messages
    begun = str(messages[-1]["content"]) if messages[-1].get("prefix") else ""
    cut = len(renderer.ids(begun)) if begun else 0
    return AnswerList(renderer.prompt(messages), [renderer.ids(begun + ask.text)[cut:] for ask in asks])


@torch.inference_mode()
def logprobs(loaded: Loaded, lists: list[AnswerList], batch_tokens: int) -> list[list[Found]]:
    """What each answer of each list has after its prompt."""
    found: dict[int, list[Found]] = {}
    for numbers in batches(lists, min(batch_tokens, LOGIT_TOKENS), kept=1):
        batch = whole_answers(loaded, [lists[i] for i in numbers])
        logits_BTV = logits_of(loaded, batch).float()
        ids_BT, marks_BT = batch["input_ids"][:, 1:], batch["marks"][:, 1:]
        tokens_BT = -cross_entropy(logits_BTV.transpose(1, 2), ids_BT, reduction="none")
        sums = (tokens_BT * marks_BT).sum(1).tolist()
        greedy = ((logits_BTV.argmax(-1) == ids_BT) | (marks_BT == 0)).all(1).tolist()
        rows = iter(zip(sums, marks_BT.sum(1).tolist(), greedy, strict=True))
        found |= {i: [Found(*next(rows)) for _ in lists[i].answers] for i in numbers}
    return [found[i] for i in range(len(lists))]


def whole_answers(loaded: Loaded, lists: Sequence[AnswerList]) -> dict[str, Tensor]:
    """A batch on the model's device that begins at each prompt's last token, with every token of the answers marked."""
    own = [replace(item, marks=[[1] * len(answer) for answer in item.answers]) for item in lists]
    return {name: value.to(loaded.device) for name, value in collate(own, loaded.renderer.pad_id, kept=1).items()}


def logits_of(loaded: Loaded, batch: dict[str, Tensor]) -> Tensor:
    """What a model says of each token of such a batch but the first, (B, T - 1, V)."""
    logits: Tensor = loaded.model(**inputs_of(loaded.model, batch, logits_to_keep=1)).logits[:, :-1]
    return logits
