"""The stage `eval.run`: answers to every suite's prompts, graded, with intervals. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config, operational
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class EvaluateConfig(Config):
    """The recipe's `evaluate:` section. The suites are all stages before it that make evaluation prompts: `heldout`,
    `read` of format heldout, and `stage: eval.suites.…`."""

    after: tuple[str, ...] = operational(("dpo",), min_length=1)
    """The stages whose checkpoints are evaluated, or names from `models:` (in `setup:` it is `[base]`). It only says
    which evaluations there are; what each depends on is its model, which is an input."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens an answer to a held-out prompt may have; a longer one is cut and graded as it stands. Suites have their
    own."""
    chunk: int = Field(256, ge=1)
    """Prompts answered between two writes to disk."""
    judge: str | None = None
    """The model that compares answers for `eval.suites.chat`: a key of `models:`; None has no such suite."""
    judge_max_new_tokens: int = Field(1024, ge=1)
    """Tokens the judge has for its reasons and its verdict."""


def wire(config: EvaluateConfig, scope: Scope) -> dict[str, Any]:
    scope.newest("eval_prompts")  # says what is missing where there is none
    return {
        "prompts": scope.all_rounds("eval_prompts"),
        "model": scope.model(scope.instance, served=True),
        "before": scope.newest("evaluation", optional=True),
        "judge": scope.model(config.judge, served=True) if config.judge else None,
        "contamination": scope.newest("contamination", optional=True),
    }


def estimate(config: EvaluateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every prompt is read once, and an answer of the expected length is written."""
    rows, model = sum(size.rows for size in sizes["prompts"]), sizes["model"]
    read, written = sum(size.tokens for size in sizes["prompts"]), int(rows * answer_tokens(config.max_new_tokens))
    return Size(
        rows=rows,
        tokens=written,
        parameters=model.parameters,
        memory=forward_memory(model.parameters),
        seconds=generation_seconds(model.parameters, read, written, machine),
    )


SPEC = StageSpec(
    module="eval.run",
    version=2,
    Config=EvaluateConfig,
    provides=lambda config: ("evaluation",),
    wire=wire,
    estimate=estimate,
    expand=lambda config, scope: list(config.after),
)
