"""The stage `reward.sample`: K answers of the policy to every prompt. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.estimate import forward_memory, forward_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class SampleConfig(Config):
    """The recipe's `sample:` section."""

    model: str = "previous"
    """Who answers: `previous` (the round before's result, or base; Llama 3, 4.2.2), a stage, or a key of `models:`."""
    k: int = Field(16, ge=1)
    """Answers a prompt; the paper has 10 to 30 (4.2.2)."""
    temperature: float = Field(0.6, ge=0)
    """Divides the logits; 0 makes all K answers the same. 0.6 is the paper's final value (4.3.2)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of probability drawn from; 1 draws from everything."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens an answer may have, its end included; a longer one is cut and marked so."""
    chunk: int = Field(64, ge=1)
    """Prompts answered between two writes to disk."""


def wire(config: SampleConfig, scope: Scope) -> dict[str, Any]:
    return {"prompts": scope.newest("prompts"), "model": scope.model(config.model)}


def estimate(config: SampleConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every prompt once and, as the worst case, K answers at their full length."""
    prompts, model = sizes["prompts"], sizes["model"]
    responses = prompts.rows * config.k
    tokens = prompts.tokens + responses * config.max_new_tokens
    return Size(
        rows=responses,
        responses=responses,
        tokens=tokens,
        parameters=model.parameters,
        memory=forward_memory(model.parameters),
        seconds=forward_seconds(model.parameters, tokens, machine),
        note=f"{config.model} ×{config.k}",
    )


SPEC = StageSpec(
    module="reward.sample",
    version=1,
    Config=SampleConfig,
    provides=lambda config: ("responses",),
    wire=wire,
    estimate=estimate,
)
