"""The stage `eval.run`: greedy answers to held-out prompts, graded, with intervals. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config, operational
from posttrain.estimate import forward_memory, forward_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class EvaluateConfig(Config):
    """The recipe's `evaluate:` section."""

    after: tuple[str, ...] = operational(("dpo",), min_length=1)
    """The stages whose checkpoints are evaluated, or names from `models:` (in `setup:` it is `[base]`). It only says
    which evaluations there are; what each depends on is its model, which is an input."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens an answer may have; a longer one is cut and graded as it stands."""
    chunk: int = Field(256, ge=1)
    """Prompts answered between two writes to disk."""


def wire(config: EvaluateConfig, scope: Scope) -> dict[str, Any]:
    return {
        "prompts": scope.newest("eval_prompts"),
        "model": scope.model(scope.instance),
        "before": scope.newest("evaluation", optional=True),
    }


def estimate(config: EvaluateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every prompt once and, as the worst case, every answer at its full length."""
    prompts, model = sizes["prompts"], sizes["model"]
    tokens = prompts.tokens + prompts.rows * config.max_new_tokens
    return Size(
        rows=prompts.rows,
        responses=prompts.rows,
        tokens=tokens,
        parameters=model.parameters,
        memory=forward_memory(model.parameters),
        seconds=forward_seconds(model.parameters, tokens, machine),
    )


SPEC = StageSpec(
    module="eval.run",
    version=1,
    Config=EvaluateConfig,
    provides=lambda config: ("evaluation",),
    wire=wire,
    estimate=estimate,
    expand=lambda config, scope: list(config.after),
)
