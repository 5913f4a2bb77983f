"""`from: factuality`: what the trained model knows, and refusals of what it does not (P 4.3.6). Torch-free."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from posttrain.stages import Amount
from synth.pipelines.world_spec import known_languages
from synth.sources import Expected, PipelineSpec, SourceConfig

OVER_ASK = 4
"""Questions asked for one that is wanted: most are answered right at times and wrong at times."""
REQUEST_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS, GRADE_TOKENS = 150, 25, 40, 20
"""What a request has beside the snippet; a question; an answer; a grade."""
WORD_TOKENS = 1.3


class FactualityConfig(SourceConfig):
    """Questions on snippets of the pre-training data: a refusal where the model is always wrong, its own answer where
    it is always right."""

    documents: str
    """A folder of .txt, .md, .rst, .html and .py files, one such file, or records with `text` (and `title`), seen from
    the recipe's folder: what the model was pre-trained on."""
    words: int = Field(150, ge=20)
    """Words of a snippet at most."""
    student: str = "previous"
    """The model that is probed: a key of `models:`, or `previous`, what the round before ended with."""
    k: int = Field(8, ge=2)
    """Its answers to each question."""
    temperature: float = Field(1.0, gt=0)
    """Of their sampling."""
    wrong: float = Field(1.0, gt=0.5, le=1)
    """Share of the answers that must be informative and wrong for a refusal; 1 asks for all. None may be right."""
    known: float = Field(1.0, ge=0)
    """Dialogs on what the model always answers right, for each refusal, so that it does not learn to know nothing; 0
    makes refusals only."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a question is like another one, and is dropped."""
    languages: tuple[str, ...] = ("en",)
    """Documents in other languages are left out."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)


def estimate(capability: str, config: FactualityConfig, sizes: Mapping[str, Any]) -> Expected:
    """A question, K answers and K + 1 grades; a refusal and its grade for those that are not known."""
    questions, rows, snippet = OVER_ASK * config.rows, config.rows, config.words * WORD_TOKENS
    refusals = math.ceil(rows / (1 + config.known))
    graded = questions * (config.k + 1) + refusals
    grading = REQUEST_TOKENS + snippet + QUESTION_TOKENS + ANSWER_TOKENS
    read = questions * (REQUEST_TOKENS + snippet + config.k * QUESTION_TOKENS) + graded * grading
    written = questions * (QUESTION_TOKENS + (config.k + 1) * ANSWER_TOKENS) + graded * GRADE_TOKENS
    each = QUESTION_TOKENS + ANSWER_TOKENS
    return Expected(
        int(questions * (1 + config.k) + graded + refusals), read, written,
        {
            "prompts": Amount(rows - refusals, (rows - refusals) * QUESTION_TOKENS),
            "rows": Amount(rows, rows * each),
            "preferences": Amount(refusals, refusals * (each + ANSWER_TOKENS)),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.factuality",
    version=2,
    Config=FactualityConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "factuality/question": ("snippet", "language", "fence"),
        "factuality/grade": ("snippet", "question", "said", "fence"),
        "factuality/refuse": ("question", "language"),
    },
    data=lambda config: {"documents": config.documents},
    models=lambda config: {"student": config.student},
    pairs=lambda config: True,
)
