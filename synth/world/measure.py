"""Greedy accuracy and any-of-K of a model folder on held-out prompts of the world."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.checks.intervals import wilson
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Prompt
from posttrain.engines.protocol import Engine, Request, Sampling, open_engine
from posttrain.machine import Machine
from synth.world import CAPABILITIES, faithful, heldout, operator_text, seeds
from synth.world.operators import OPERATORS

MAX_NEW_TOKENS = 200


@dataclass(frozen=True)
class Accuracy:
    right: int
    n: int

    def __add__(self, other: "Accuracy") -> "Accuracy":
        return Accuracy(self.right + other.right, self.n + other.n)

    def __str__(self) -> str:
        rate = wilson(self.right, self.n)
        return f"{rate.accuracy:.3f} ({rate.low:.3f}-{rate.high:.3f})"


def answers(
    engine: Engine, prompts: Sequence[Prompt], seed: int, k: int = 1, temperature: float = 0.0
) -> list[list[str]]:
    """`k` texts for each prompt in the prompts' order; temperature 0 is greedy."""
    requests = [Request(str(i), prompt.messages, prompt.tools, seed + i) for i, prompt in enumerate(prompts)]
    sampling = Sampling(n=k, temperature=temperature, max_new_tokens=MAX_NEW_TOKENS)
    made = {some[0].request_id: [one.text for one in some] for some in engine.generate(requests, sampling)}
    return [made[request.id] for request in requests]


def right(prompt: Prompt, engine: Engine, text: str) -> bool:
    assert prompt.check is not None
    return grade(prompt.check, engine.renderer.message(text)).value == 1.0


def capability_accuracy(
    engine: Engine, prompts: Sequence[Prompt], seed: int, k: int = 1, temperature: float = 0.0
) -> Accuracy:
    """Prompts of which at least one of the `k` answers is right."""
    pairs = zip(prompts, answers(engine, prompts, seed, k, temperature), strict=True)
    return Accuracy(sum(any(right(p, engine, text) for text in some) for p, some in pairs), len(prompts))


def operator_accuracy(engine: Engine, capability: str, n: int, seed: int) -> Accuracy:
    """Specs (levels 1 and 2) of which the model's greedy wording is faithful."""
    specs = seeds(capability, n // 2, seed, 1) + seeds(capability, n - n // 2, seed, 2)
    asked = [Prompt(({"role": "user", "content": operator_text(spec)},), capability) for spec in specs]
    texts = answers(engine, asked, seed)
    return Accuracy(sum(faithful(spec, text[0]) for spec, text in zip(specs, texts, strict=True)), n)


def row_accuracy(engine: Engine, name: str, n: int, seed: int) -> Accuracy:
    """Held-out rows of an operator (levels 1 and 2) of which the last message, written greedily, is right."""
    operator, rng = OPERATORS[name], random.Random(f"measure {name} {seed}")
    rows = [operator.draw(rng, 1 + i % 2, "heldout") for i in range(n)]
    asked = [Prompt(row.messages[:-1], "operator", tools=row.tools) for row in rows]
    texts = answers(engine, asked, seed)
    return Accuracy(sum(operator.right(row, text[0].strip()) for row, text in zip(rows, texts, strict=True)), n)


def table(folder: Path, n: int, seed: int, any_of: int = 0, operators: bool = False) -> Iterator[str]:
    """Lines: capability, level, greedy accuracy with interval; where asked any-of-K at temperature 1, operators. `n`
    prompts a level; the line of both is of twice as many."""
    engine = open_engine(folder, Machine(device="cpu"))
    for capability in CAPABILITIES:
        greedy, some = Accuracy(0, 0), Accuracy(0, 0)
        for level in (1, 2):
            prompts = heldout(capability, n, seed, (level,))
            now = capability_accuracy(engine, prompts, seed)
            now_some = capability_accuracy(engine, prompts, seed, any_of, 1.0) if any_of else Accuracy(0, n)
            yield _line(f"level {level}", capability, now, now_some, any_of)
            greedy, some = greedy + now, some + now_some
        yield _line("both", capability, greedy, some, any_of)
        if operators:
            yield f"{capability:14} {'worded':8} n={n:<4}  {operator_accuracy(engine, capability, n, seed)}"
    for name in OPERATORS if operators else ():
        yield f"{name:14} {'operator':8} n={n:<4}  {row_accuracy(engine, name, n, seed)}"


def _line(level: str, capability: str, greedy: Accuracy, some: Accuracy, any_of: int) -> str:
    line = f"{capability:14} {level:8} n={greedy.n:<4}  greedy {greedy}"
    return f"{line}  any of {any_of} {some}" if any_of else line
