"""The reward model: Bradley-Terry on all preferences so far, without a margin term (Llama 3, 4.1.2)."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import TrainingConfig, data_size, training_size


class RewardConfig(TrainingConfig):
    """`batch_size` counts pairs."""

    init: str = "base"
    """The checkpoint whose backbone it starts from (the paper: the pre-trained model); the score head is new."""
    heldout_share: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts, chosen by hash, whose pairs are not trained on but measured; 0 measures nothing."""


def wire(config: RewardConfig, scope: Scope) -> dict[str, Any]:
    """All preferences of all rounds so far."""
    found = scope.all_rounds("preferences")
    return {"preferences": found or [scope.newest("preferences")], "init": scope.model(config.init)}


def estimate(config: RewardConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    rows, tokens = data_size(sizes, "preferences")
    return training_size(config, rows, tokens, sizes["init"].parameters, machine, f"starts from {config.init}")


SPEC = StageSpec(
    module="reward.train",
    version=1,
    Config=RewardConfig,
    provides=lambda config: ("reward_model",),
    wire=wire,
    estimate=estimate,
)
