"""The stage `synth.heldout`: evaluation prompts from the world's held-out side. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from posttrain.config import Config
from posttrain.data.shares import largest_remainder
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from synth.capabilities import LENGTHS, WORLD, Capability, Level, prompt_tokens


class HeldoutConfig(Config):
    """The recipe's `heldout:` section, in `setup:`."""

    n: int = Field(1200, ge=1)
    """Prompts in all."""
    seed: int = Field(0, ge=0)
    """Which prompts of the held-out side; it stands apart from the recipe's seed, so that runs with other seeds are
    measured on the same prompts."""
    capabilities: dict[Capability, float] = Field(default_factory=lambda: dict.fromkeys(WORLD, 1.0))
    """Capability → its weight among the prompts."""
    levels: tuple[Level, ...] = Field((1, 2), min_length=1)
    """Difficulties, shared out evenly."""
    lengths: tuple[int, ...] = Field(LENGTHS, min_length=1)
    """Tokens of the long_context prompts, drawn evenly."""

    @field_validator("capabilities")
    @classmethod
    def _some_weight(cls, weights: dict[Capability, float]) -> dict[Capability, float]:
        if not weights or any(not 0 < weight < float("inf") for weight in weights.values()):
            raise ValueError("at least one capability, each with a weight above 0, is needed")
        return weights

    @field_validator("lengths")
    @classmethod
    def _positive(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if min(lengths) < 1:
            raise ValueError("a length is a number of tokens, at least 1")
        return lengths


def estimate(config: HeldoutConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    counts = largest_remainder(config.capabilities, config.n)
    tokens = sum(count * prompt_tokens(name, config.lengths) for name, count in counts.items())
    return Size(rows=config.n, tokens=tokens, note="held-out side of the world")


def wire(config: HeldoutConfig, scope: Scope) -> dict[str, Any]:
    return {}


SPEC = StageSpec(
    module="synth.heldout",
    version=1,
    Config=HeldoutConfig,
    provides=lambda config: ("eval_prompts",),
    wire=wire,
    estimate=estimate,
)
