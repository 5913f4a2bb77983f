"""The stage `reward.sample`: K answers of the policy to every prompt. Torch-free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec


class SampleConfig(Config):
    """The recipe's `sample:` section."""

    model: tuple[str, ...] = ("previous",)
    """Who answers: `previous` (the round before's result, or base; Llama 3, 4.2.2), a stage, or a key of `models:`.
    Each of several gives `k` answers, so that pairs can be of two models (4.2.1)."""
    k: int = Field(16, ge=1)
    """Answers a prompt and model; the paper has 10 to 30 (4.2.2)."""
    temperature: float | tuple[float, float] = 0.6
    """Divides the logits; 0 makes all K answers the same. 0.6 is the paper's final value. Of a range, `[0.2, 1.0]` in
    its early rounds, each prompt draws its own (4.3.2)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of probability drawn from; 1 draws from everything."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens an answer may have, its end included; a longer one is cut and marked so."""
    system: dict[str, str] = {}
    """Capability → system prompt that steers the answers to its prompts (4.2.2), `default` for those not named. Prompts
    with a system message keep theirs. What is trained later does not contain it."""
    logprobs: bool = False
    """Whether every answer must have its log-probability; a served model that gives none is then refused."""
    tools: dict[str, str] = {}
    """Tool, by the name that prompts declare → what runs its calls: `python`, `calculator`, `search`, or a user's
    `module:function` (docs/tools.md). The model goes on with the results until it answers without a call, or with one
    that nothing here runs. Empty runs no call: it is the answer."""
    corpus: str = ""
    """What the tool `search` looks through: a folder of .txt and .md files, or a file of records with `text`, seen from
    the recipe's folder. Empty where nothing searches."""
    turns: int = Field(8, ge=1)
    """Messages the model may write to a prompt whose calls are run; one that would need more counts as cut."""
    chunk: int = Field(64, ge=1)
    """Prompts answered between two writes to disk; served models write each."""

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name one model, or several different ones")
        return names

    @model_validator(mode="after")
    def _searchable(self) -> "SampleConfig":
        if ("search" in self.tools.values()) != bool(self.corpus):
            raise ValueError("the tool search looks through `corpus`: name both, or neither")
        return self

    @field_validator("temperature")
    @classmethod
    def _possible(cls, value: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(value, tuple) and not 0 < value[0] < value[1]:
            raise ValueError("a range of temperatures is two numbers above 0, the lower first")
        if not isinstance(value, tuple) and value < 0:
            raise ValueError("a temperature is 0 or more")
        return value


def wire(config: SampleConfig, scope: Scope) -> dict[str, Any]:
    inputs = {"prompts": scope.newest("prompts"), "model": [scope.model(name, served=True) for name in config.model]}
    if config.tools:
        from posttrain.checks.tools import check_name  # few recipes name tools, and all are planned

        for name, by in config.tools.items():
            check_name(name, by)
    if config.corpus:
        inputs["corpus"] = scope.data(config.corpus)
        if not Path(inputs["corpus"].source).exists():
            raise UserError(f"corpus: {config.corpus} is not there; name a folder or file of texts")
    return inputs


def estimate(config: SampleConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every prompt is read once, and K answers of the expected length are written, by each model."""
    prompts, models = sizes["prompts"].of("prompts"), sizes["model"]
    answers = prompts.rows * config.k
    written = int(answers * answer_tokens(config.max_new_tokens))
    made = Amount(answers * len(models), written * len(models))
    return Size(
        rows=made.rows,
        tokens=made.tokens,
        parameters=max(model.parameters for model in models),
        memory=forward_memory(max(model.parameters for model in models)),
        seconds=sum(generation_seconds(model.parameters, prompts.tokens, written, machine) for model in models),
        cost=sum(model.charges(prompts.tokens, written) for model in models),
        note=f"{', '.join(config.model)} ×{config.k}",
        made={"responses": made},
    )


SPEC = StageSpec(
    module="reward.sample",
    version=3,
    Config=SampleConfig,
    provides=lambda config: ("responses",),
    wire=wire,
    estimate=estimate,
)
