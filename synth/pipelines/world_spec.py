"""`from: synth`: the teacher words tasks of the procedural world, whose answers are known. Torch-free."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from posttrain.data.rows import LANGUAGES
from posttrain.stages import Amount
from synth.capabilities import LENGTHS, OPERATOR_TOKENS, WORDING_TOKENS, WORDINGS, WORLD, Level, prompt_tokens
from synth.sources import Expected, PipelineSpec, SourceConfig

OVER_ASK = 1.3
"""Texts asked of the teacher for one prompt wanted: some are unfaithful, repeated or on the held-out side."""


class WorldConfig(SourceConfig):
    """Tasks of the world, in the teacher's words."""

    languages: tuple[str, ...] = LANGUAGES
    """Languages of multilingual prompts, in equal parts; other capabilities are in English."""
    lengths: tuple[int, ...] = Field(LENGTHS, min_length=1)
    """Tokens of long_context prompts, drawn evenly."""
    level: Level = 1
    """Difficulty of the world's tasks."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)


def known_languages(languages: tuple[str, ...]) -> tuple[str, ...]:
    """As they are. Raises ValueError for none, or one that is not among the eight."""
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown or not languages:
        raise ValueError(f"known languages are {', '.join(LANGUAGES)}; not {', '.join(unknown) or 'none at all'}")
    return languages


def asked(wanted: int) -> int:
    """Texts asked in the first pass for `wanted` prompts."""
    return math.ceil(OVER_ASK * wanted)


def check(capability: str, config: WorldConfig) -> None:
    if capability not in WORLD:
        raise ValueError(f"the world has no capability {capability}; it has {', '.join(WORLD)}, others come from files")


def estimate(capability: str, config: WorldConfig, sizes: Mapping[str, Any]) -> Expected:
    """Each prompt is worded once, and over-asked."""
    texts = asked(config.rows)
    prompts = Amount(config.rows, int(config.rows * prompt_tokens(capability, config.lengths)))
    return Expected(texts, texts * OPERATOR_TOKENS, texts * WORDING_TOKENS, {"prompts": prompts})


PIPELINE = PipelineSpec(
    module="synth.pipelines.world",
    version=2,
    Config=WorldConfig,
    estimate=estimate,
    templates=lambda capability, config: dict([WORDINGS[capability]]),
    check=check,
)
