"""The stage `synth.generate`: prompts, dialogs and pairs from a teacher, and answers to prompts. Torch-free."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator
from pydantic.functional_validators import BeforeValidator

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec
from synth.sources import (
    EARLIER,
    EVALUATED,
    EVALUATION,
    Expected,
    SourceConfig,
    input_name,
    module_of,
    pipeline_spec,
    takes_failures,
    typed,
    wire_source,
)  # fmt: skip

Source = Annotated[SerializeAsAny[SourceConfig], BeforeValidator(typed)]
"""An entry of `prompts:` as the config of its pipeline."""


class GenerateConfig(Config):
    """The recipe's `synthesize:` section."""

    model: str = "teacher"
    """The teacher, who makes the prompts and answers: a key of `models:`, a stage's name, or `previous`, the best model
    so far (what the round before ended with, behind its gate)."""
    prompts: dict[str, Source]
    """What to write, by capability; filled from the recipe's top-level `prompts:`."""
    share: float = Field(0.1, ge=0, le=1)
    """The share of the prompts without a dialog of their own, by hash of their ids, that the teacher also answers;
    right answers become SFT rows."""
    temperature: float = Field(0.7, ge=0)
    """Of the sampling when prompts are written; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """The same for nucleus sampling; 1 is off."""
    answer_temperature: float = Field(0.0, ge=0)
    """Of the sampling when prompts are answered; 0 is greedy."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens a prompt or an answer may have; a longer one is dropped."""
    chunk: int = Field(256, ge=1)
    """Texts between two writes to disk."""

    @field_validator("prompts")
    @classmethod
    def _can_be_made(cls, prompts: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        if not prompts:
            raise ValueError("the prompt pool is empty; give the recipe's `prompts:` a capability")
        for name, source in prompts.items():
            pipeline_spec(source.from_).check(name, source)
        return prompts


def makes_pairs(config: GenerateConfig) -> bool:
    """Whether a pipeline of it makes preference pairs."""
    return any(pipeline_spec(source.from_).pairs(source) for source in config.prompts.values())


def provides(config: GenerateConfig) -> tuple[str, ...]:
    return ("prompts", "rows", "preferences") if makes_pairs(config) else ("prompts", "rows")


def wire(config: GenerateConfig, scope: Scope) -> dict[str, Any]:
    inputs: dict[str, Any] = {"teacher": scope.model(config.model, served=True)}
    inputs[EARLIER] = scope.all_rounds("prompts")
    if any(takes_failures(source) for source in config.prompts.values()):
        inputs |= {EVALUATION: scope.newest("evaluation"), EVALUATED: scope.all_rounds("eval_prompts")}
    for capability, source in config.prompts.items():
        if source.budget and source.budget.cost and not _has_price(inputs["teacher"]):
            raise UserError(f"prompts.{capability}.budget: cost needs a teacher behind an endpoint that has a price")
        inputs |= wire_source(capability, source, scope)
    return inputs


def _has_price(model: Any) -> bool:
    served = getattr(model, "served", None)
    return served is not None and bool(served.price.input or served.price.output)


def estimate(config: GenerateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """What the pipelines ask, and the answers to a share of the prompts that they make no dialog for."""
    found = {name: _expected(name, source, sizes) for name, source in config.prompts.items()}
    made = {kind: _sum(found, kind) for kind in provides(config)}
    bare = _sum({name: one for name, one in found.items() if not one.made.get("rows", Amount()).rows}, "prompts")
    answers, answer = int(config.share * bare.rows), answer_tokens(config.max_new_tokens)
    read = sum(one.read for one in found.values()) + answers * bare.each
    written = sum(one.written for one in found.values()) + answers * answer
    rows = made["rows"]
    made["rows"] = Amount(rows.rows + answers, rows.tokens + int(answers * (bare.each + answer)))
    parameters = sizes["teacher"].parameters
    return Size(
        rows=made["prompts"].rows,
        tokens=int(written),
        parameters=parameters,
        memory=forward_memory(parameters),
        seconds=generation_seconds(parameters, read, written, machine),
        cost=sizes["teacher"].charges(read, written),
        note=f"{config.model} writes {made['prompts'].rows:,} prompts, answers {config.share:.0%}",
        made=made,
    )


def _expected(capability: str, source: SourceConfig, sizes: Mapping[str, Any]) -> Expected:
    spec = pipeline_spec(source.from_)
    named = {**spec.files(source), **spec.data(source), **spec.models(source)}
    files = {name: sizes.get(input_name(name, capability)) for name in named}
    return spec.estimate(capability, source, files)


def _sum(found: Mapping[str, Expected], kind: str) -> Amount:
    amounts = [one.made.get(kind, Amount()) for one in found.values()]
    return Amount(sum(amount.rows for amount in amounts), sum(amount.tokens for amount in amounts))


SPEC = StageSpec(
    module="synth.generate",
    version=2,
    Config=GenerateConfig,
    provides=provides,
    wire=wire,
    estimate=estimate,
    loads=lambda config: tuple(sorted({module_of(source.from_) for source in config.prompts.values()})),
)
