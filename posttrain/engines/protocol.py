"""What every engine takes and gives, and the one place where an engine is opened."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from posttrain.chat.parse import Dialect
from posttrain.data.rows import Message, Tool, content_id
from posttrain.endpoint import Endpoint
from posttrain.engines.account import Account
from posttrain.errors import UserError
from posttrain.machine import Machine

Finish = Literal["stop", "length", "too_long", "refused"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    n: int = 1
    """Completions a request."""
    temperature: float | tuple[float, float] = 1.0
    """Divides the logits; 0 takes the likeliest token. Of a range, each request draws its own by its seed."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that together have this probability are drawn from; 1 keeps all."""
    max_new_tokens: int = 256
    """Tokens after the prompt, the end-of-turn token included."""
    logprobs: bool = False
    """Whether completions must have a log-probability; an engine that cannot say it raises UserError."""

    def __post_init__(self) -> None:
        low, high = self.temperature if isinstance(self.temperature, tuple) else (self.temperature, self.temperature)
        in_order = 0 < low < high if isinstance(self.temperature, tuple) else low >= 0
        if self.n < 1 or self.max_new_tokens < 1 or not in_order or not 0 < self.top_p <= 1:
            raise UserError(
                f"{self} cannot be sampled; n and max_new_tokens are ≥ 1, temperature ≥ 0 or a rising range above 0, "
                "top_p in (0, 1]"
            )

    def temperature_of(self, seed: int) -> float:
        """The fixed temperature, or that of the request with this seed, uniform in the range."""
        if not isinstance(self.temperature, tuple):
            return self.temperature
        low, high = self.temperature
        return low + (high - low) * int(content_id("temperature", seed)[:13], 16) / 16**13


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

    `ids` is empty where a server tells none; `tokens` counts them, and is then what the server says. `logprob` is the
    summed log-probability of `ids` in nats at temperature 1, or None where the engine cannot say. `finish`: `stop` at
    an end of turn; `length` at max_new_tokens; `too_long` when prompt and max_new_tokens exceed what the model takes,
    so that no answer counts; `refused` when the prompt cannot be sent (`text` then says why) or a server's filter gave
    no answer. `seed` is the completion's own. `prompt_tokens` are those that a server charged for it, else 0.
    """

    request_id: str
    index: int
    text: str
    ids: tuple[int, ...]
    logprob: float | None
    finish: Finish
    seed: int
    tokens: int = -1
    prompt_tokens: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 0:
            object.__setattr__(self, "tokens", len(self.ids))


class Reader(Protocol):
    """What reads generated text."""

    dialect: Dialect | None
    """The way of writing calls that it reads; None where the template is not Llama's."""

    def message(self, text: str) -> Message:
        """The assistant message that generated text, without its end of turn, says."""


class Engine(Protocol):
    """A model ready to answer."""

    renderer: Reader
    """The renderer of the model's own tokenizer, or where a server has that, what reads its text."""
    independent: bool = False
    """Whether a request's answers have nothing to do with those it is sent along with, so that each is kept alone."""
    lanes: int = 1
    """How many calls of `generate` may run at once, each in a thread of its own."""
    account: Account | None = None
    """What its answers cost; None where nobody asks for money."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """One list of `sampling.n` completions for each request as it is finished, in any order."""

    def close(self) -> None:
        """Give back memory; the engine is not used after it."""


ENGINES = {
    "transformers": "posttrain.engines.transformers",
    "vllm": "posttrain.engines.vllm",
    "vllm-serve": "posttrain.engines.managed",
    "transformers-serve": "posttrain.engines.managed",
}
"""`machine.engine` → module with `open_model(model, machine) -> Engine`."""


def open_engine(model: str | Path | Endpoint, machine: Machine) -> Engine:
    """Open a checkpoint folder or hub name in the machine's engine, or a served model at its endpoint.

    Raises UserError when it cannot be opened.
    """
    if isinstance(model, Endpoint):
        served: Engine = importlib.import_module("posttrain.engines.openai").OpenAIEngine(model)
        return served
    if machine.workers > 1 and machine.engine == "transformers":
        parallel: Engine = importlib.import_module("posttrain.engines.parallel").ParallelEngine(model, machine)
        return parallel
    opened: Engine = importlib.import_module(ENGINES[machine.engine]).open_model(model, machine)
    return opened


def sample_seed(seed: int, index: int) -> int:
    """The seed of a request's sample, 60 bits."""
    return int(content_id("sample", seed, index)[:15], 16)


def unanswered(request: Request, sampling: Sampling, finish: Finish, why: str = "") -> list[Completion]:
    """The completions of a request that was not put to the model."""
    seeds = [sample_seed(request.seed, index) for index in range(sampling.n)]
    return [Completion(request.id, index, why, (), None, finish, seed) for index, seed in enumerate(seeds)]
