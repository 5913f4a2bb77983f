"""`from: reasoning`: questions with a final answer, and solutions that reach it (P 4.3.3). Torch-free."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from posttrain.stages import Amount
from synth.sources import FAILURES, Expected, PipelineSpec, SourceConfig, some_share

Kind = Literal["skills", "text", "problems"]
SKILLS = Path(__file__).parent.parent / "reasoning" / "skills.yaml"
OVER_ASK = 2.0
"""Questions begun for one that is wanted: some are alike, of others nobody agrees on the answer."""
QUESTION_TOKENS, SOLUTION_TOKENS, PASSAGE_TOKENS = 90, 300, 600


class ReasoningConfig(SourceConfig):
    """Questions by skill or from texts, or problems with known answers; solutions, programs and corrections."""

    kinds: Annotated[dict[Kind, float], AfterValidator(some_share)] = {"skills": 1.0}
    """Where questions come from, by weight: `skills`, a taxonomy; `text`, passages of `documents`; `problems`, a file
    of prompts whose checks know the answer."""
    skills: str | None = None
    """A YAML file with `levels`, `settings` and `skills` (field of mathematics → list), seen from the recipe's folder.
    None takes the project's own."""
    documents: str | None = None
    """For `text`: a folder of texts, one such file, or records with `text`. None where there are no such questions."""
    problems: str | None = None
    """For `problems`: a prompts JSONL whose prompts have a check. None where there are no such questions."""
    solutions: int = Field(4, ge=1)
    """Solutions sampled of each question."""
    agree: float = Field(0.5, gt=0, le=1)
    """Share of the solutions that must reach the answer that whoever wrote the question gave; where they do not, nobody
    knows who is wrong, and the question is dropped. Of `problems` one solution is enough."""
    most: int = Field(2, ge=1)
    """Right solutions of a question that are kept, at most."""
    verified: float = Field(7.0, ge=0, le=10)
    """The teacher's own grade of a solution's steps, 1 to 10, at least; 0 asks for none."""
    step_scorer: str | None = None
    """A process reward model: key of `models:`, or a stage's name, of a one-label classifier on a causal backbone. It
    scores each solution at the end of each of its lines; None has none."""
    least_step: float = 0.0
    """The least score of its worst line that a solution may have, in the model's own units."""
    python: float = Field(0.25, ge=0, le=1)
    """Share of the questions that are also solved with Python, run in the sandbox step by step."""
    corrected: bool = True
    """Whether a wrong solution goes back to the teacher, and the dialog is kept in which it found the mistake."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a question is like another one, and is dropped."""

    @model_validator(mode="after")
    def _have_their_files(self) -> "ReasoningConfig":
        for kind, field in (("text", "documents"), ("problems", "problems")):
            if self.kinds.get(kind) and getattr(self, field) is None:  # type: ignore[call-overload]
                raise ValueError(f"kind {kind!r} needs {field}:")
        if self.problems == FAILURES:
            raise ValueError("problems: failures would train on what is evaluated; use from: general for seeds")
        return self


def estimate(capability: str, config: ReasoningConfig, sizes: Mapping[str, Any]) -> Expected:
    """A question, its solutions, grades of the kept ones, a correction of half of them, and dialogs with Python."""
    whole = sum(config.kinds.values())
    begun = math.ceil(OVER_ASK * config.rows)
    written_by_teacher = begun * (1 - config.kinds.get("problems", 0.0) / whole)
    from_text = begun * config.kinds.get("text", 0.0) / whole
    solutions, graded = begun * config.solutions, begun * config.most if config.verified else 0
    corrections, programs = begun / 2 if config.corrected else 0, 2 * config.python * begun
    asked = written_by_teacher + solutions + graded + corrections + programs
    read = from_text * PASSAGE_TOKENS + solutions * QUESTION_TOKENS + programs * (QUESTION_TOKENS + SOLUTION_TOKENS)
    read += (graded + corrections) * (QUESTION_TOKENS + SOLUTION_TOKENS)
    written = written_by_teacher * QUESTION_TOKENS + (asked - written_by_teacher) * SOLUTION_TOKENS
    rows = config.rows * config.most
    return Expected(
        int(asked), read, written,
        {
            "prompts": Amount(config.rows, config.rows * QUESTION_TOKENS),
            "rows": Amount(rows, rows * (QUESTION_TOKENS + SOLUTION_TOKENS)),
        },
    )  # fmt: skip


def _files(config: ReasoningConfig) -> Mapping[str, str]:
    return {"skills": config.skills or str(SKILLS)} | ({"problems": config.problems} if config.problems else {})


PIPELINE = PipelineSpec(
    module="synth.pipelines.reasoning",
    version=2,
    Config=ReasoningConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "reasoning/question": ("skill", "field", "level", "setting"),
        "reasoning/from_text": ("document", "fence"),
        "reasoning/solve": ("question",),
        "reasoning/python": (),
        "reasoning/correct": ("question", "solution"),
    },
    files=_files,
    data=lambda config: {"documents": config.documents} if config.documents else {},
    models=lambda config: {"step_scorer": config.step_scorer} if config.step_scorer else {},
)
