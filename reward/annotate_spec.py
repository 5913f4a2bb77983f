"""The stage `reward.annotate`: preference pairs on a share of the prompts. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class AnnotateConfig(Config):
    """The recipe's `annotate:` section."""

    by: Literal["verifier"] = "verifier"
    """Who says which answer is better: the prompt's own check, so prompts without one are left out."""
    share: float = Field(0.3, gt=0, le=1)
    """Share of the prompts, chosen by the hash of their ids; they train the reward model and are not scored by it."""
    pairs_per_prompt: int = Field(4, ge=1)
    """Pairs of a right and a wrong answer a prompt, at most; drawn by seed."""


def wire(config: AnnotateConfig, scope: Scope) -> dict[str, Any]:
    return {"prompts": scope.newest("prompts"), "responses": scope.newest("responses")}


def estimate(config: AnnotateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """As many pairs as there can be; no model runs."""
    prompts = sizes["prompts"]
    rows = int(prompts.rows * config.share) * config.pairs_per_prompt
    answer = (sizes["responses"].tokens - prompts.tokens) // max(1, sizes["responses"].responses)
    return Size(rows=rows, tokens=2 * rows * (prompts.tokens // max(1, prompts.rows) + answer), note=f"by {config.by}")


SPEC = StageSpec(
    module="reward.annotate",
    version=1,
    Config=AnnotateConfig,
    provides=lambda config: ("preferences",),
    wire=wire,
    estimate=estimate,
)
