"""The weighted mean of several checkpoints (Llama 3, 4.1.5)."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import listed

READ_BYTES_PER_SECOND = 5e8
"""What a plain disk gives; averaging only reads and writes."""


class AverageConfig(Config):
    """Checkpoints of one architecture and tokenizer."""

    of: tuple[str, ...] = Field(min_length=1)
    """Stages of this round, `previous`, or keys of `models:`."""
    weights: tuple[float, ...] = ()
    """One a checkpoint, scaled to sum to 1; empty is the plain mean."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> "AverageConfig":
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} checkpoints; give one each, or none")
        if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError(f"weights are {list(self.weights)}; none may be negative, and one must be above 0")
        return self


def wire(config: AverageConfig, scope: Scope) -> dict[str, Any]:
    return {"of": [scope.model(name) for name in config.of]}


def estimate(config: AverageConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    models = listed(sizes["of"])
    parameters = models[0].parameters
    read = 2 * parameters * (len(models) + 1) / READ_BYTES_PER_SECOND
    return Size(parameters=parameters, seconds=read, note=f"mean of {', '.join(config.of)}")


SPEC = StageSpec(
    module="posttrain.train.average",
    version=1,
    Config=AverageConfig,
    provides=lambda config: ("checkpoint",),
    wire=wire,
    estimate=estimate,
)
