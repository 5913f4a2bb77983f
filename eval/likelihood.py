"""Multiple choice by likelihood: each choice's text as the answer, the prompt computed once for all of them."""

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from eval.suites.choices import CHOICES, LETTERS
from eval.table import Graded
from posttrain.data.rows import Prompt, Response
from posttrain.endpoint import Endpoint
from posttrain.engines.lists import AnswerList, batches, collate, inputs_of
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import answer_list
from posttrain.errors import UserError
from posttrain.stages import Job

LOGIT_TOKENS = 4096
"""Tokens whose logits are in memory at once: with Llama's vocabulary 2 GB in float32."""


def chosen(job: Job, prompts: list[Prompt]) -> list[Graded]:
    """The choice with the highest log-probability a token, the end of the turn among them; its number is in `parsed`.

    Raises UserError for a model behind an endpoint: servers do not tell the probability of given texts.
    """
    model = job.inputs["model"]
    if isinstance(model, Endpoint):
        raise UserError(
            f"the suite {prompts[0].capability} asks for the likelihood of given texts, which the endpoint of "
            f"{model.model} cannot say; set by: letter, or evaluate the model's own files"
        )
    loaded = load_model(model, job.machine)
    lists = [
        answer_list(loaded.renderer, prompt.messages, prompt.tools, [_says(text) for text in prompt.made_by[CHOICES]])
        for prompt in prompts
    ]
    values = logprobs(loaded, lists, job.machine.batch_tokens)
    return [_graded(job, *found) for found in zip(prompts, lists, values, strict=True)]


def _says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _graded(job: Job, prompt: Prompt, item: AnswerList, values: list[float]) -> Graded:
    assert prompt.check is not None
    share = [value / len(answer) for value, answer in zip(values, item.answers, strict=True)]
    best = share.index(max(share))
    made_by = {"stage": job.name, "round": job.round, "model": job.name, "by": "likelihood"}
    text = prompt.made_by[CHOICES][best]
    response = Response(prompt.id, best, text, "stop", len(item.answers[best]), values[best], made_by)
    right = LETTERS[best] == prompt.check.args["answer"]
    return Graded(prompt, response, float(right), "right" if right else "another choice", LETTERS[best])


@torch.inference_mode()
def logprobs(loaded: Loaded, lists: list[AnswerList], batch_tokens: int) -> list[list[float]]:
    """The summed log-probability in nats of each answer of each list."""
    found: dict[int, list[float]] = {}
    for numbers in batches(lists, min(batch_tokens, LOGIT_TOKENS), kept=1):
        own = [replace(lists[i], marks=[[1] * len(answer) for answer in lists[i].answers]) for i in numbers]
        batch = {name: value.to(loaded.device) for name, value in collate(own, loaded.renderer.pad_id, kept=1).items()}
        inputs = inputs_of(loaded.model, batch, logits_to_keep=1)
        logits_BTV = loaded.model(**inputs).logits[:, :-1].float()
        tokens_BT = -cross_entropy(logits_BTV.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
        sums = (tokens_BT * batch["marks"][:, 1:]).sum(1)
        counts = [len(lists[i].answers) for i in numbers]
        found |= {i: own.tolist() for i, own in zip(numbers, sums.split(counts), strict=True)}
    return [found[i] for i in range(len(lists))]
