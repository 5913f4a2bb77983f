"""`from: steerability`: dialogs of several turns that keep to a system prompt (P 4.3.7). Torch-free."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.stages import Amount
from synth.pipelines.general_spec import ANSWER_TOKENS, OVER_ASK, PROMPT_TOKENS, REQUEST_TOKENS, NewPromptsConfig
from synth.sources import Expected, PipelineSpec

SYSTEM_TOKENS = 40


class SteerabilityConfig(NewPromptsConfig):
    """Dialogs behind a system prompt on persona, length, format or language, checked at every answer."""

    turns: int = Field(3, ge=2)
    """The user's turns at most; how many is drawn evenly from 2."""
    least: float = Field(7, ge=1, le=10)
    """The least grade, 1 to 10, that the teacher must give an answer for keeping to a persona; the other system prompts
    are checked by a program."""


def estimate(capability: str, config: SteerabilityConfig, sizes: Mapping[str, Any]) -> Expected:
    """Requests for prompts, and for each turn an answer, the next turn, and for a quarter a grade of the persona."""
    dialogs, turns = OVER_ASK * config.rows, (2 + config.turns) / 2
    requests, each = math.ceil(dialogs / config.batch), PROMPT_TOKENS + ANSWER_TOKENS
    asked = requests + dialogs * (0.25 + turns * 2.25)
    read = requests * REQUEST_TOKENS + dialogs * 2.25 * turns * (SYSTEM_TOKENS + each * turns / 2)
    written = dialogs * turns * 1.25 * each
    context = int(SYSTEM_TOKENS + (turns - 1) * each)
    return Expected(
        int(asked), read, written,
        {
            "prompts": Amount(config.rows, config.rows * (context + PROMPT_TOKENS)),
            "rows": Amount(config.rows, config.rows * (context + each)),
            "preferences": Amount(0, 0),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.steerability",
    version=2,
    Config=SteerabilityConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "general/new_prompts": ("count", "language", "examples"),
        "general/persona": ("prompt", "language"),
        "general/revise": ("conversation", "answer", "fault"),
        "steerability/next_turn": ("conversation", "language"),
    },
    files=lambda config: {"seeds": config.seeds},
    pairs=lambda config: True,
)
