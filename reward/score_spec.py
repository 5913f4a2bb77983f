"""The stage `reward.score`: every scorer's value of every candidate, and their weighted sum. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import forward_memory, forward_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class ScoreConfig(Config):
    """The recipe's `score:` section: scorers by weight; each is standardised within a prompt before it is weighted."""

    reward: float = Field(1.0, ge=0)
    """Weight of the reward model, read at the end-of-turn token; 0 leaves it out."""
    votes: float = Field(0.0, ge=0)
    """Weight of the log count of equal answers among a prompt's candidates; 0 leaves it out."""
    verifier: float = Field(0.0, ge=0)
    """Weight of the prompt's own check; 0 leaves it out (it is the yardstick then, and must not select)."""
    chunk: int = Field(64, ge=1)
    """Prompts scored between two writes to disk."""

    def model_post_init(self, context: Any) -> None:
        if not (self.reward or self.votes or self.verifier):
            raise ValueError("every weight is 0; give at least one of reward, votes, verifier a weight")


def wire(config: ScoreConfig, scope: Scope) -> dict[str, Any]:
    inputs = {
        "prompts": scope.newest("prompts"),
        "responses": scope.newest("responses"),
        "preferences": scope.newest("preferences", optional=True),
    }
    if config.reward:
        inputs["reward_model"] = scope.newest("reward_model", optional=True)
        if inputs["reward_model"] is None:
            raise UserError(
                "score.reward has a weight but no reward model comes before it; add `reward:` or set it to 0"
            )
    return inputs


def estimate(config: ScoreConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """The reward model reads what the policy wrote: every prompt once and every answer."""
    responses, model = sizes["responses"], sizes.get("reward_model")
    parameters = model.parameters if model else 0
    return Size(
        rows=responses.rows,
        responses=responses.responses,
        tokens=responses.tokens if model else 0,
        parameters=parameters,
        memory=forward_memory(parameters),
        seconds=forward_seconds(parameters, responses.tokens, machine),
    )


SPEC = StageSpec(
    module="reward.score",
    version=1,
    Config=ScoreConfig,
    provides=lambda config: ("scores",),
    wire=wire,
    estimate=estimate,
)
