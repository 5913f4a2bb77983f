"""The reward model: Bradley-Terry on all preferences so far, without a margin term (Llama 3, 4.1.2)."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from posttrain.data.rows import Rating
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import TrainingConfig, data_size, training_size


class RewardConfig(TrainingConfig):
    """`batch_size` counts prompts: a step sees all pairs of each of them, and its loss is the mean over these pairs."""

    init: str = "base"
    """The checkpoint whose backbone it starts from (the paper: the pre-trained model); the score head is new."""
    heldout_share: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts, chosen by hash, whose pairs are not trained on but measured; 0 measures nothing."""
    ratings: tuple[Rating, ...] = ("edited", "significantly_better", "better")
    """The ratings that are trained on, and measured (Llama 3, 4.1.2 and 4.2.1); pairs that nobody rated always are."""
    margin: float = Field(0.0, ge=0)
    """How far the better answer's reward is to lie above the other's, in units of reward, for pairs rated
    `significantly_better` or `edited` and unrated ones; `better` asks for two thirds of it, `slightly_better` for one
    third, `marginally_better` for none (Llama 2, 2307.09288, A.3.3). 0 is Bradley-Terry without margin, as Llama 3."""
    one_row: bool = False
    """Whether a prompt and all its answers are one row, the answers in random order and each seeing those before it:
    the paper's approximation (4.1.2). False computes the prompt once and each answer as if it were alone, exactly."""

    @model_validator(mode="after")
    def _backbone_is_whole(self) -> "RewardConfig":
        if self.lora and self.lora.four_bit:
            raise ValueError("lora.four_bit is for language models; a reward model takes lora without it")
        return self


def wire(config: RewardConfig, scope: Scope) -> dict[str, Any]:
    """All preferences of all rounds so far."""
    found = scope.all_rounds("preferences")
    return {"preferences": found or [scope.newest("preferences")], "init": scope.model(config.init)}


def estimate(config: RewardConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    rows, tokens = data_size(sizes, preferences="preferences")
    return training_size(config, rows, tokens, sizes["init"].parameters, machine, f"starts from {config.init}")


SPEC = StageSpec(
    module="reward.train",
    version=3,
    Config=RewardConfig,
    provides=lambda config: ("reward_model",),
    wire=wire,
    estimate=estimate,
)
