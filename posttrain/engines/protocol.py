"""What every engine takes and gives, and the one place where an engine is opened by name."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from posttrain.chat import Renderer
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError
from posttrain.machine import Machine

Finish = Literal["stop", "length", "too_long"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    n: int = 1
    """Completions a request."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that together have this probability are drawn from; 1 keeps all."""
    max_new_tokens: int = 256
    """Tokens after the prompt, the end-of-turn token included."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"{self} cannot be sampled; n and max_new_tokens are ≥ 1, temperature ≥ 0, top_p in (0, 1]")


@dataclass(frozen=True)
class Request:
    """A conversation that ends where the assistant is to speak; `seed` and the completion's index fix its noise."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """One completion. `text` is without the end-of-turn token, `ids` are all generated ids with it.

    `logprob` is the summed log-probability of `ids` in nats at temperature 1, or None where the engine cannot say.
    `finish`: `stop` at an end of turn; `length` at max_new_tokens; `too_long` when prompt and max_new_tokens exceed the
    model's positions, so nothing was generated. `seed` is the completion's own.
    """

    request_id: str
    index: int
    text: str
    ids: tuple[int, ...]
    logprob: float | None
    finish: Finish
    seed: int


class Engine(Protocol):
    """A model ready to answer. `renderer` is that of the model's own tokenizer."""

    renderer: Renderer

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """One list of `sampling.n` completions for each request as it is finished, in any order."""

    def close(self) -> None:
        """Give back memory; the engine is not used after it."""


ENGINES = {"transformers": "posttrain.engines.transformers"}
"""Engine name → module with `open_model(model, machine) -> Engine`."""


def open_engine(model: str | Path, machine: Machine, engine: str = "transformers") -> Engine:
    """Load a checkpoint folder or hub name into an engine. Raises UserError when it cannot be loaded."""
    if engine not in ENGINES:
        raise UserError(f"engine {engine!r} is not known; use {' or '.join(sorted(ENGINES))}")
    opened: Engine = importlib.import_module(ENGINES[engine]).open_model(model, machine)
    return opened
