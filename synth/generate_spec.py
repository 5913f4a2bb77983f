"""The stage `synth.generate`: a teacher writes prompts, and answers to a share of them. Torch-free."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from posttrain.config import Config
from posttrain.data.rows import LANGUAGES
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec
from synth.capabilities import LENGTHS, OPERATOR_TOKENS, WORDING_TOKENS, WORLD, Level, prompt_tokens

OVER_ASK = 1.3
"""Texts asked of the teacher for one prompt wanted: some are unfaithful, repeated or on the held-out side."""


class PromptSource(Config):
    """One entry of the recipe's `prompts:` section; its key is the capability."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    from_: Literal["synth", "file"] = Field("synth", alias="from")
    """`synth`: the teacher words tasks of the world; `file`: a prompts JSONL."""
    rows: int = Field(ge=1)
    """Prompts wanted in each round; from a file that has more, a seeded choice."""
    path: str | None = None
    """The file of `from: file`, seen from the recipe's folder; its lines that name another capability are left out, so
    that entries may share a file. None with `from: synth`."""
    languages: tuple[str, ...] = LANGUAGES
    """Languages of multilingual prompts, in equal parts; other capabilities are in English."""
    lengths: tuple[int, ...] = Field(LENGTHS, min_length=1)
    """Tokens of long_context prompts, drawn evenly."""
    level: Level = 1
    """Difficulty of the world's tasks."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(languages) - set(LANGUAGES))
        if unknown or not languages:
            raise ValueError(f"known languages are {', '.join(LANGUAGES)}; not {', '.join(unknown) or 'none at all'}")
        return languages

    @model_validator(mode="after")
    def _file_has_path(self) -> "PromptSource":
        if (self.from_ == "file") != (self.path is not None):
            raise ValueError("path goes with `from: file`, and only with it")
        return self


class GenerateConfig(Config):
    """The recipe's `synthesize:` section."""

    model: str = "teacher"
    """Key of `models:` or a stage's name: who writes the prompts and answers."""
    prompts: dict[str, PromptSource]
    """What to write, by capability; filled from the recipe's top-level `prompts:`."""
    share: float = Field(0.1, ge=0, le=1)
    """The share of the prompts, by hash of their ids, that the teacher also answers; right answers become SFT rows."""
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
    def _known_to_the_world(cls, prompts: dict[str, PromptSource]) -> dict[str, PromptSource]:
        if not prompts:
            raise ValueError("the prompt pool is empty; give the recipe's `prompts:` a capability")
        strange = [name for name, source in prompts.items() if source.from_ == "synth" and name not in WORLD]
        if strange:
            raise ValueError(
                f"the world has no capability {strange[0]}; it has {', '.join(WORLD)}, others come from files"
            )
        return prompts


def wire(config: GenerateConfig, scope: Scope) -> dict[str, Any]:
    files = {file_input(name): scope.file(source.path) for name, source in config.prompts.items() if source.path}
    return {"teacher": scope.model(config.model, served=True), **files}


def file_input(capability: str) -> str:
    """The name of the input that holds a capability's prompts file."""
    return f"file-{capability}"


def asked(wanted: int) -> int:
    """Texts asked in the first pass for `wanted` prompts."""
    return math.ceil(OVER_ASK * wanted)


def estimate(config: GenerateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Prompts of the world are worded once each and over-asked; a share of all prompts is answered."""
    prompts = Amount(
        sum(source.rows for source in config.prompts.values()),
        sum(int(source.rows * _prompt_tokens(name, source, sizes)) for name, source in config.prompts.items()),
    )
    worded = sum(asked(source.rows) for source in config.prompts.values() if source.from_ == "synth")
    answers = int(config.share * prompts.rows)
    answer = answer_tokens(config.max_new_tokens)
    read = worded * OPERATOR_TOKENS + answers * prompts.each
    written = worded * WORDING_TOKENS + answers * answer
    parameters = sizes["teacher"].parameters
    return Size(
        rows=prompts.rows,
        tokens=int(written),
        parameters=parameters,
        memory=forward_memory(parameters),
        seconds=generation_seconds(parameters, read, written, machine),
        note=f"{config.model} writes {prompts.rows:,} prompts, answers {config.share:.0%}",
        made={"prompts": prompts, "rows": Amount(answers, int(answers * (prompts.each + answer)))},
    )


def _prompt_tokens(capability: str, source: PromptSource, sizes: Mapping[str, Any]) -> float:
    """Mean tokens of a capability's prompts: of a file what its bytes say."""
    file = sizes.get(file_input(capability))
    if file is not None and file.rows:
        return float(file.of("prompts").each)
    return prompt_tokens(capability, source.lengths)


SPEC = StageSpec(
    module="synth.generate",
    version=1,
    Config=GenerateConfig,
    provides=lambda config: ("prompts", "rows"),
    wire=wire,
    estimate=estimate,
)
