"""`from: safety`: adversarial and borderline prompts by hazard category, with right answers (P 5.4). Torch-free."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from posttrain.stages import Amount, External
from synth.pipelines.world_spec import known_languages
from synth.safety.hazards import TEMPLATES, hazards, read_seeds
from synth.sources import Expected, PipelineSpec, SourceConfig

OVER_ASK = 1.5
"""Prompts asked for one that is wanted."""
OTHERS = "default"
"""The key of `borderline` for categories that it does not name."""
REQUEST_TOKENS, PROMPT_TOKENS, ANSWER_TOKENS, GRADE_TOKENS = 250, 35, 120, 10
"""A request for prompts; a prompt; an answer; a label or grade."""


class SafetyConfig(SourceConfig):
    """Prompts by hazard category that are to be declined, or only sound so; their answers, and pairs of these with the
    trained model's own failures."""

    categories: tuple[str, ...] = tuple(hazards())
    """Codes S1 to S14, in equal parts."""
    borderline: dict[str, float] = {OTHERS: 0.5}
    """Category → share of its prompts that only sound harmful and are to be answered; `default` for those not named.
    The paper has more of them in harder areas. In S4 all that the teacher writes are such."""
    languages: tuple[str, ...] = ("en",)
    """Languages of the prompts, in equal parts."""
    seeds: str | None = None
    """A JSONL of prompts of your own with `prompt`, `expect` (refuse or answer) and `category`, seen from the recipe's
    folder. They are answered too, before all others, and shown as examples. None has the teacher's alone."""
    shots: int = Field(3, ge=0)
    """Prompts shown as examples in a request: of the same category and kind, of the seeds and of those kept so far."""
    batch: int = Field(5, ge=1)
    """Prompts asked for in a request."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a prompt is like another one, and is dropped."""
    least: float = Field(7, ge=1, le=10)
    """The least grade, 1 to 10, that the teacher must give an answer by the tone guideline."""
    student: str | None = "previous"
    """The model whose failures are the rejected answers of pairs: a key of `models:`, or `previous`, what the round
    before ended with. None makes no pairs."""
    k: int = Field(4, ge=2)
    """Its answers to each prompt."""
    most_like: float = Field(0.2, gt=0, le=1)
    """Share of common pairs of words, of the shorter answer, that the two answers of a pair may have; the paper wants
    them nearly orthogonal."""
    many_shot: float = Field(0.0, ge=0, le=1)
    """Share of the prompts to be declined that are put behind demonstrations in which an assistant complies."""
    demonstrations: str | None = None
    """A file of such dialogs of your own, seen from the recipe's folder; none comes with the package. They stand in the
    user's message and are never trained."""
    demonstrations_most: int = Field(256, ge=1)
    """Demonstrations before one prompt at most: the powers of two up to it are drawn evenly."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)

    @model_validator(mode="after")
    def _fits_together(self) -> "SafetyConfig":
        unknown = [code for code in (*self.categories, *self.borderline) if code not in (*hazards(), OTHERS)]
        if unknown or not self.categories or OTHERS in self.categories:
            raise ValueError(f"categories are {', '.join(hazards())}; not {', '.join(unknown) or 'none'}")
        if any(not 0 <= share <= 1 for share in self.borderline.values()):
            raise ValueError("borderline has a share from 0 to 1 for each category")
        if bool(self.many_shot) != bool(self.demonstrations):
            raise ValueError("many_shot and demonstrations are given together: a share, and a file of dialogs")
        return self

    def borderline_of(self, category: str) -> float:
        """The share of a category's prompts that are to be answered."""
        share = self.borderline.get(category, self.borderline.get(OTHERS, 0.5))
        return share if hazards()[category].written else 1.0


def look(config: SafetyConfig, files: Mapping[str, External]) -> None:
    if "seeds" in files:
        read_seeds(Path(files["seeds"].source))


def estimate(capability: str, config: SafetyConfig, sizes: Mapping[str, Any]) -> Expected:
    """Requests, a label, an answer and two grades for each prompt, and the student's answers with a grade each."""
    prompts, requests = OVER_ASK * config.rows, math.ceil(OVER_ASK * config.rows / config.batch)
    tries = config.rows * config.k if config.student else 0
    shots = config.rows * config.many_shot * config.demonstrations_most / math.log2(config.demonstrations_most + 2)
    asked = requests + 4 * prompts + 2 * tries
    each = PROMPT_TOKENS + ANSWER_TOKENS
    read = (
        requests * REQUEST_TOKENS + prompts * (4 * PROMPT_TOKENS + 2 * ANSWER_TOKENS) + tries * (each + PROMPT_TOKENS)
    )
    written = prompts * (each + 3 * GRADE_TOKENS) + tries * (ANSWER_TOKENS + GRADE_TOKENS)
    rows, context = config.rows, int(shots * each)
    return Expected(
        int(asked), read + context * (config.k if config.student else 0), written,
        {
            "prompts": Amount(rows, rows * PROMPT_TOKENS + context),
            "rows": Amount(rows, rows * each + context),
            "preferences": Amount(0, 0),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.safety",
    version=2,
    Config=SafetyConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "safety/adversarial": ("count", "language", "category", "about", "examples"),
        "safety/borderline": ("count", "language", "category", "about", "examples"),
        **TEMPLATES,
    },
    files=lambda config: {
        name: path for name in ("seeds", "demonstrations") if (path := getattr(config, name)) is not None
    },
    models=lambda config: {"student": config.student} if config.student else {},
    pairs=lambda config: config.student is not None,
    look=look,
)
