"""`from: refusals`: old refusals written anew by the guideline of tone (P 5.4). Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.stages import Amount
from synth.safety.hazards import TEMPLATES
from synth.sources import Expected, PipelineSpec, SourceConfig

OVER_ASK = 1.2
"""Dialogs taken for one that is wanted."""
PROMPT_TOKENS, ANSWER_TOKENS, GRADE_TOKENS = 60, 120, 10


class RefusalsConfig(SourceConfig):
    """Dialogs whose last answer declines, with that answer written anew; where the request was harmless, answered."""

    dialogs: str
    """A file of dialogs in any of the formats that `read` knows, seen from the recipe's folder."""
    least: float = Field(7, ge=1, le=10)
    """The least grade, 1 to 10, that the teacher must give a new answer by the tone guideline."""
    most_like: float = Field(0.2, gt=0, le=1)
    """Share of common pairs of words, of the shorter answer, up to which the new and the old answer make a pair."""


def estimate(capability: str, config: RefusalsConfig, sizes: Mapping[str, Any]) -> Expected:
    """A label, an answer and two grades for each dialog."""
    taken, rows = OVER_ASK * config.rows, config.rows
    read, written = taken * (4 * PROMPT_TOKENS + 3 * ANSWER_TOKENS), taken * (ANSWER_TOKENS + 3 * GRADE_TOKENS)
    each = PROMPT_TOKENS + ANSWER_TOKENS
    return Expected(
        int(4 * taken), read, written,
        {"rows": Amount(rows, rows * each), "preferences": Amount(rows // 2, rows // 2 * (each + ANSWER_TOKENS))},
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.refusals",
    version=1,
    Config=RefusalsConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "safety/rewrite": ("conversation", "said", "guideline", "fence"),
        **TEMPLATES,
    },
    files=lambda config: {"dialogs": config.dialogs},
    pairs=lambda config: True,
)
