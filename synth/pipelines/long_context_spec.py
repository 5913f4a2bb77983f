"""`from: long_context`: dialogs on documents of 16K to 128K tokens (P 4.3.4). Torch-free."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from posttrain.data.rows import LANGUAGES
from posttrain.stages import Amount
from synth.pipelines.world_spec import known_languages
from synth.sources import Expected, PipelineSpec, SourceConfig, some_share

Kind = Literal["qa", "summary", "needles", "repository"]
LENGTHS = (16_384, 32_768, 65_536, 131_072)
"""P 4.3.4: 16K, 32K, 64K and 128K."""
OVER_ASK = 1.3
"""Dialogs begun for one that is wanted."""
FILLED = 0.8
"""Of a row's greatest length, what it has on average."""
ANSWER_TOKENS = 740
"""What the assistant says in a row (P table 7: 740.5 in the final response)."""
QUESTION_TOKENS, SUMMARY_TOKENS = 150, 400
"""A question with its answer, key and evidence; the summary of a chunk."""


class LongContextConfig(SourceConfig):
    """Questions on long documents, summaries of them, needles in them, and files that a repository lacks."""

    documents: str
    """A folder of .txt, .md, .rst, .html and .py files, one such file, or records with `text` (and `title`), seen from
    the recipe's folder. For `repository` the folder is the root that its imports are seen from."""
    kinds: Annotated[dict[Kind, float], AfterValidator(some_share)] = {"qa": 2.0, "summary": 1.0, "needles": 1.0}
    """What is made, by weight: `qa`, questions on a random chunk with the whole document as context; `summary`, of the
    whole by way of its chunks, with questions on the whole; `needles`, four facts hidden and two asked; `repository`,
    a Python file that is imported by others is missing: who needs it, and what stood in it."""
    lengths: tuple[int, ...] = Field(LENGTHS, min_length=1)
    """Greatest length of a row in tokens, of each as many; a row has more than half of its own."""
    tokenizer: str = "base"
    """Whose tokens are meant: a key of `models:`, or a stage's name."""
    chunk: int = Field(8192, ge=128)
    """Tokens of a document that the teacher reads at once; of short rows half a row."""
    turns: int = Field(3, ge=1)
    """Questions of a dialog at most; how many is drawn evenly."""
    importers: int = Field(5, ge=1)
    """Of `repository`: files that must import the missing one, at least (the paper has five)."""
    languages: tuple[str, ...] = LANGUAGES
    """Documents in other languages are left out. `needles` and `repository` are in English."""
    sampled: bool = False
    """Whether the first question of a dialog is also a prompt to be sampled, where its answer can be checked."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)

    @field_validator("lengths")
    @classmethod
    def _long_enough(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if min(lengths) < 512:
            raise ValueError("a row of fewer than 512 tokens holds no document and a dialog on it")
        return lengths


def estimate(capability: str, config: LongContextConfig, sizes: Mapping[str, Any]) -> Expected:
    """By kind: a question is written from a chunk, and asked with and without it; a summary reads each chunk."""
    whole = sum(config.kinds.values())
    begun = {kind: math.ceil(OVER_ASK * config.rows * weight / whole) for kind, weight in config.kinds.items()}
    length = FILLED * sum(config.lengths) / len(config.lengths)
    questions, chunks = (1 + config.turns) / 2, math.ceil(length / config.chunk)
    qa, summaries, needles = begun.get("qa", 0), begun.get("summary", 0), begun.get("needles", 0)
    asked = qa * (1 + 2 * questions) + summaries * (chunks + 3 + questions) + needles
    read = qa * config.chunk * (1 + questions) + summaries * (length + 2 * chunks * SUMMARY_TOKENS) + needles * 30
    written = qa * 2 * questions * QUESTION_TOKENS + needles * 20
    written += summaries * ((chunks + 1) * SUMMARY_TOKENS + 2 * questions * QUESTION_TOKENS)
    prompts = config.rows if config.sampled else 0
    return Expected(
        int(asked), read, written,
        {
            "prompts": Amount(prompts, int(prompts * length)),
            "rows": Amount(config.rows, int(config.rows * (length + ANSWER_TOKENS))),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.long_context",
    version=1,
    Config=LongContextConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "long_context/questions": ("document", "count", "language", "fence"),
        "long_context/closed_book": ("question",),
        "long_context/open_book": ("document", "question", "fence"),
        "long_context/summarize": ("document", "language", "fence"),
        "long_context/merge": ("parts", "language", "fence"),
        "long_context/overview_questions": ("parts", "count", "language", "fence"),
        "long_context/request_summary": ("title", "language"),
        "long_context/new_prompt": ("answer",),
    },
    data=lambda config: {"documents": config.documents},
    models=lambda config: {"tokenizer": config.tokenizer},
)
