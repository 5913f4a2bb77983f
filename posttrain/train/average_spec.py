"""The weighted mean of several checkpoints (Llama 3, 4.1.5)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import listed

READ_BYTES_PER_SECOND = 5e8
"""What a plain disk gives; averaging only reads and writes."""


class AverageConfig(Config):
    """Checkpoints of one architecture and tokenizer."""

    of: tuple[str, ...] = Field(min_length=1)
    """Stages of this round, `previous`, or keys of `models:`."""
    kind: Literal["checkpoint", "reward_model"] = "checkpoint"
    """What is averaged, and so what the stages after it take it for."""
    method: Literal["mean", "ema", "greedy"] = "mean"
    """`mean`, plain or with `weights`; `ema`, over the `snapshots` of the one training named, the newest weighing most;
    `greedy` (Wortsman et al. 2022, 2203.05482, recipe 1): the best by `scorer` first, then each that does not make the
    mean worse."""
    weights: tuple[float, ...] = ()
    """One a checkpoint, scaled to sum to 1; empty is the plain mean. For `mean` only."""
    decay: float = Field(0.7, gt=0, lt=1)
    """For `ema`: what is left of the mean so far when a newer snapshot comes in."""
    scorer: str = "eval.run"
    """For `greedy`: the stage that measures a model on all held-out prompts so far; its summary has
    `overall.accuracy`."""

    @model_validator(mode="after")
    def _fits_the_method(self) -> "AverageConfig":
        if self.weights and self.method != "mean":
            raise ValueError(f"weights go with the method mean, and here is {self.method}")
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} checkpoints; give one each, or none")
        if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError(f"weights are {list(self.weights)}; none may be negative, and one must be above 0")
        if self.method == "ema" and len(self.of) != 1:
            raise ValueError(f"ema is over the snapshots of one training, and of names {len(self.of)}")
        if self.method == "greedy" and self.kind != "checkpoint":
            raise ValueError("greedy measures answers, which a reward_model does not give; use mean or ema")
        return self


def wire(config: AverageConfig, scope: Scope) -> dict[str, Any]:
    found = [_model(config, scope, name) for name in config.of]
    if config.method == "ema" and not getattr(getattr(found[0], "config", None), "snapshots", 0):
        raise UserError(f"ema needs snapshots of {config.of[0]}; give that training `snapshots: 5`, or another number")
    prompts = scope.all_rounds("eval_prompts") if config.method == "greedy" else None
    if prompts == []:
        raise UserError("greedy measures on held-out prompts, and no stage before it makes any")
    return {"of": found, "prompts": prompts}


def _model(config: AverageConfig, scope: Scope, name: str) -> Any:
    if config.kind == "checkpoint":
        return scope.model(name)
    made = [node for node in scope.this_round("reward_model") if node.name == name]
    if not made:
        raise UserError(f"there is no reward model {name!r} made before it in this round")
    return made[-1]


def estimate(config: AverageConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    models = listed(sizes["of"])
    parameters = models[0].parameters
    read = 2 * parameters * (len(models) + 1) / READ_BYTES_PER_SECOND
    return Size(parameters=parameters, seconds=read, note=f"mean of {', '.join(config.of)}")


SPEC = StageSpec(
    module="posttrain.train.average",
    version=2,
    Config=AverageConfig,
    provides=lambda config: (config.kind,),
    wire=wire,
    estimate=estimate,
)
