"""Greedy accuracy and any-of-K of a model folder on held-out prompts of the world."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from posttrain.chat import Renderer
from posttrain.checks.intervals import wilson
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Prompt
from synth.world import CAPABILITIES, faithful, heldout, operator_text, seeds
from synth.world.operators import OPERATORS

MAX_NEW_TOKENS = 200


@dataclass(frozen=True)
class Accuracy:
    right: int
    n: int

    def __str__(self) -> str:
        rate = wilson(self.right, self.n)
        return f"{rate.accuracy:.3f} ({rate.low:.3f}-{rate.high:.3f})"


@torch.no_grad()
def answers(
    model: LlamaForCausalLM, renderer: Renderer, prompts: Sequence[Prompt], k: int, temperature: float
) -> list[list[str]]:
    """`k` texts for each prompt in the prompts' order; temperature 0 is greedy."""
    ids = [renderer.prompt(prompt.messages, prompt.tools) for prompt in prompts]
    made: list[list[str]] = [[] for _ in prompts]
    for batch in _batches([len(row) for row in ids], most_tokens=12_000 // k):
        longest = max(len(ids[i]) for i in batch)
        padded = torch.tensor([[renderer.pad_id] * (longest - len(ids[i])) + ids[i] for i in batch])
        mask = torch.tensor([[0] * (longest - len(ids[i])) + [1] * len(ids[i]) for i in batch])
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        out = model.generate(
            input_ids=padded, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, num_return_sequences=k,
            eos_token_id=list(renderer.stop_ids), pad_token_id=renderer.pad_id, **(sampling or {"do_sample": False}),
        )  # fmt: skip
        texts = renderer.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        for place, i in enumerate(batch):
            made[i] = texts[place * k : (place + 1) * k]
    return made


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Indices in order of length, in batches of at most `most_tokens` padded tokens."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > most_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def right(prompt: Prompt, renderer: Renderer, text: str) -> bool:
    assert prompt.check is not None
    return grade(prompt.check, renderer.message(text)).value == 1.0


def capability_accuracy(
    model: LlamaForCausalLM, renderer: Renderer, prompts: Sequence[Prompt], k: int = 1, temperature: float = 0.0
) -> Accuracy:
    """Prompts of which at least one of the `k` answers is right."""
    texts = answers(model, renderer, prompts, k, temperature)
    pairs = zip(prompts, texts, strict=True)
    return Accuracy(sum(any(right(p, renderer, text) for text in some) for p, some in pairs), len(prompts))


def operator_accuracy(model: LlamaForCausalLM, renderer: Renderer, capability: str, n: int, seed: int) -> Accuracy:
    """Specs (levels 1 and 2) of which the model's greedy wording is faithful."""
    specs = seeds(capability, n // 2, seed, 1) + seeds(capability, n - n // 2, seed, 2)
    asked = [Prompt(({"role": "user", "content": operator_text(spec)},), capability) for spec in specs]
    texts = answers(model, renderer, asked, 1, 0.0)
    return Accuracy(sum(faithful(spec, text[0]) for spec, text in zip(specs, texts, strict=True)), n)


def row_accuracy(model: LlamaForCausalLM, renderer: Renderer, name: str, n: int, seed: int) -> Accuracy:
    """Held-out rows of an operator (levels 1 and 2) of which the last message, written greedily, is right."""
    operator, rng = OPERATORS[name], random.Random(f"measure {name} {seed}")
    rows = [operator.draw(rng, 1 + i % 2, "heldout") for i in range(n)]
    asked = [Prompt(row.messages[:-1], "operator", tools=row.tools) for row in rows]
    texts = answers(model, renderer, asked, 1, 0.0)
    return Accuracy(sum(operator.right(row, text[0].strip()) for row, text in zip(rows, texts, strict=True)), n)


def table(
    model: LlamaForCausalLM,
    renderer: Renderer,
    n: int,
    seed: int,
    lengths: tuple[int, ...] | None = None,
    any_of: int = 0,
    operators: bool = False,
) -> Iterator[str]:
    """Lines: capability, level, greedy accuracy with interval; where asked any-of-K at temperature 1, operators."""
    model.eval()
    for capability in CAPABILITIES:
        for level in (1, 2):
            prompts = heldout(capability, n, seed, (level,), lengths)
            line = f"{capability:13} level {level}  n={n}  greedy {capability_accuracy(model, renderer, prompts)}"
            if any_of:
                torch.manual_seed(seed)
                line += f"  any of {any_of} {capability_accuracy(model, renderer, prompts, any_of, 1.0)}"
            yield line
        if operators:
            yield f"{capability:13} worded   n={n}  {operator_accuracy(model, renderer, capability, n, seed)}"
    for name in OPERATORS if operators else ():
        yield f"{name:13} operator n={n}  {row_accuracy(model, renderer, name, n, seed)}"
    model.train()
