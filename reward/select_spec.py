"""The stage `reward.select`: which candidates become SFT rows, and which two a ranked pair. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class RowRule(Config):
    """How one answer a prompt is chosen to be trained on; `sft: best` is short for `sft: {rule: best}`."""

    rule: Literal["best", "random", "verified"] = "best"
    """`best`: highest combined score (rejection sampling, Llama 3, 4.2.2). Ablations: `random` of K by seed, and
    `verified`, a random one that the prompt's check passes."""
    top_share: float = Field(1.0, gt=0, le=1)
    """Share of the prompts of each capability that is kept, best first; 1 keeps all."""
    top_by: Literal["reward", "margin"] = "reward"
    """What `top_share` orders by: the reward model's value of the chosen answer, or best minus worst combined score."""


class PairRule(Config):
    """How two answers a prompt are ranked for DPO; `pairs: best_vs_worst` is short for a rule of that name."""

    rule: Literal["best_vs_worst"] = "best_vs_worst"
    """The answer of the highest combined score against that of the lowest."""
    min_margin: float = Field(0.0, ge=0)
    """Least difference of the two combined scores (weighted standard deviations within a prompt); 0 asks for none."""


class SelectConfig(Config):
    """The recipe's `select:` section. Answers that were cut are never selected."""

    sft: RowRule | None = RowRule()
    """Rows for SFT; none (or null) makes none."""
    pairs: PairRule | None = PairRule()
    """Ranked pairs for DPO; none (or null) makes none."""

    @field_validator("sft", "pairs", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value == "none":
            return None
        return {"rule": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> "SelectConfig":
        if self.sft is None and self.pairs is None:
            raise ValueError("sft and pairs are both none; select something or leave the stage out")
        return self


def needs_scores(config: SelectConfig) -> bool:
    """Whether any rule ranks by score."""
    rule = config.sft
    return config.pairs is not None or (rule is not None and (rule.rule == "best" or rule.top_share < 1))


def wire(config: SelectConfig, scope: Scope) -> dict[str, Any]:
    return {
        "prompts": scope.newest("prompts"),
        "responses": scope.newest("responses"),
        "scores": scope.newest("scores", optional=not needs_scores(config)),
    }


def provides(config: SelectConfig) -> tuple[str, ...]:
    return ("rows",) * (config.sft is not None) + ("pairs",) * (config.pairs is not None)


def estimate(config: SelectConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """At most one row and one pair a prompt, of which the SFT rows are counted where there are any; no model runs."""
    prompts, responses = sizes["prompts"], sizes["responses"]
    answer = (responses.tokens - prompts.tokens) // max(1, responses.responses)
    rows = prompts.rows if config.sft is None else int(prompts.rows * config.sft.top_share)
    return Size(rows=rows, tokens=rows * (prompts.tokens // max(1, prompts.rows) + answer))


SPEC = StageSpec(
    module="reward.select",
    version=1,
    Config=SelectConfig,
    provides=provides,
    wire=wire,
    estimate=estimate,
)
