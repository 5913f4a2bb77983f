"""The stage `eval.contamination`: which evaluation prompts stand in the training data. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class ContaminationConfig(Config):
    """The recipe's `contamination:` section: it stands after the mixes whose rows are trained on. Evaluations after it
    report each suite's accuracy on its clean prompts as well."""

    ngram: int = Field(8, ge=1)
    """Words of a run that counts as an overlap (P 5.1.4: 8; 13 is common too)."""
    overlap: float | None = Field(0.5, ge=0, le=1)
    """Share of a prompt's words that must lie in runs which a row has too; None: only messages that are equal."""


def wire(config: ContaminationConfig, scope: Scope) -> dict[str, Any]:
    trained = [*scope.this_round("sft_data"), *scope.this_round("dpo_data")]
    if not trained:
        raise UserError(f"{scope.name}: no stage before it in this round makes sft_data or dpo_data to look into")
    scope.newest("eval_prompts")
    return {"trained": trained, "prompts": scope.all_rounds("eval_prompts")}


def estimate(config: ContaminationConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    return Size(rows=sum(size.rows for size in sizes["prompts"]), note="looked for in training rows")


SPEC = StageSpec(
    module="eval.contamination",
    version=1,
    Config=ContaminationConfig,
    provides=lambda config: ("contamination",),
    wire=wire,
    estimate=estimate,
)
