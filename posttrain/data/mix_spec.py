"""The stage `posttrain.data.mix`: rows of several stages in given proportions. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class MixConfig(Config):
    """The recipe's `mix:` section. Source of the idea: P 4.2.2, table 7."""

    weights: dict[str, float] = {}
    """Capability → its weight among the rows; they need not sum to 1, and a capability without one, or with 0, is left
    out. Empty: every row there is."""
    rows: int = Field(0, ge=0)
    """Rows of the mix; 0 takes the most at which no capability that has rows falls short of its share."""
    rounds: Literal["this", "all"] = "this"
    """Mix the rows of this round, or those of all rounds so far."""

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= weight < float("inf") for weight in weights.values()):
            raise ValueError("a weight is a number of at least 0")
        if weights and not any(weights.values()):
            raise ValueError("at least one weight must be above 0")
        return weights


def wire(config: MixConfig, scope: Scope) -> dict[str, Any]:
    sources = scope.this_round("rows") if config.rounds == "this" else scope.all_rounds("rows")
    if not sources:
        raise UserError(f"{scope.name}: no stage before it makes rows; add synthesize, select or read")
    return {"rows": sources}


def estimate(config: MixConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    there = sum(size.rows for size in sizes["rows"])
    rows = min(config.rows, there) if config.rows else there
    tokens = sum(size.tokens for size in sizes["rows"])
    return Size(rows=rows, tokens=tokens * rows // max(1, there), note=f"of {there:,} rows")


SPEC = StageSpec(
    module="posttrain.data.mix",
    version=1,
    Config=MixConfig,
    provides=lambda config: ("sft_data",),
    wire=wire,
    estimate=estimate,
)
