"""`from: general`: new prompts from seed prompts, with constraints and system prompts that are checked. Torch-free."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from posttrain.stages import Amount
from synth.pipelines.world_spec import known_languages
from synth.sources import Expected, PipelineSpec, SourceConfig

OVER_ASK = 1.5
"""Prompts asked for one that is wanted: some are like another, or their answers fail their check."""
REQUEST_TOKENS, PROMPT_TOKENS, ANSWER_TOKENS = 300, 40, 280
"""A request for new prompts with its examples; a prompt; an answer (P table 6: 36 and 271 for general English)."""


class NewPromptsConfig(SourceConfig):
    """New prompts from seed prompts."""

    seeds: str
    """A prompts JSONL whose prompts are shown as examples, seen from the recipe's folder; or `failures`, the prompts
    that the last evaluation before this stage answered wrongly, so that new ones are made where the model is weak."""
    languages: tuple[str, ...] = ("en",)
    """Languages of the new prompts, in equal parts."""
    shots: int = Field(3, ge=1)
    """Seed prompts shown in a request."""
    batch: int = Field(5, ge=1)
    """New prompts asked for in a request."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a new prompt is like a seed or another one, and is dropped; 1 drops only
    those that are contained in another."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)


class GeneralConfig(NewPromptsConfig):
    """New general prompts, their answers, and pairs of an answer and its revision."""

    constraints: float = Field(0.4, ge=0, le=1)
    """Share of the English prompts that get constraints which a program checks, in the manner of IFEval."""
    most_constraints: int = Field(3, ge=1, le=5)
    """Constraints of one prompt at most; how many is drawn evenly."""
    system: float = Field(0.3, ge=0, le=1)
    """Share of the prompts that get a system prompt: persona, length, format or language, evenly."""
    revised: float = Field(0.2, ge=0, le=1)
    """Share of the answers that pass all checks that are revised too; a pair when a judge, the teacher, prefers the
    revision in both orders. One that fails its check is always revised, and makes a pair when the revision passes."""

    @model_validator(mode="after")
    def _shares(self) -> "GeneralConfig":
        if self.constraints + self.system > 1:
            raise ValueError("constraints and system are shares of the same prompts; together they are at most 1")
        return self


def estimate(capability: str, config: GeneralConfig, sizes: Mapping[str, Any]) -> Expected:
    """Requests for prompts, an answer each, and for the revised ones a revision and two verdicts."""
    prompts = config.rows * OVER_ASK
    requests = math.ceil(prompts / config.batch)
    revised = config.revised * prompts
    read = requests * REQUEST_TOKENS + prompts * PROMPT_TOKENS + revised * 3 * (PROMPT_TOKENS + 2 * ANSWER_TOKENS)
    written = prompts * (PROMPT_TOKENS + ANSWER_TOKENS) + revised * 3 * ANSWER_TOKENS
    pairs = int(config.revised * config.rows)
    return Expected(
        int(requests + prompts + 3 * revised), read, written,
        {
            "prompts": Amount(config.rows - pairs, (config.rows - pairs) * PROMPT_TOKENS),
            "rows": Amount(config.rows, config.rows * (PROMPT_TOKENS + ANSWER_TOKENS)),
            "preferences": Amount(pairs, pairs * (PROMPT_TOKENS + 2 * ANSWER_TOKENS)),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.general",
    version=2,
    Config=GeneralConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "general/new_prompts": ("count", "language", "examples"),
        "general/persona": ("prompt", "language"),
        "general/revise": ("conversation", "answer", "fault"),
    },
    files=lambda config: {"seeds": config.seeds},
    pairs=lambda config: True,
)
