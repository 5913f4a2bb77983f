"""`from: code`: programming dialogs that are parsed, linted and run (P 4.3.1). Torch-free."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from posttrain.stages import Amount
from synth.code.languages import LANGUAGES
from synth.sources import Expected, PipelineSpec, SourceConfig, some_share

Kind = Literal["feedback", "translation", "explained"]
OVER_ASK = 2.0
"""Items begun for one that is wanted: problems are alike, tests fail, translations print something else."""
SNIPPET_TOKENS, PROBLEM_TOKENS, SOLUTION_TOKENS, TESTS_TOKENS = 200, 150, 350, 250
WRONG_FIRST = 0.2
"""P 4.3.1: the share of solutions that were wrong first and corrected by the model itself."""


class CodeConfig(SourceConfig):
    """Problems with solutions that pass their tests, translations between languages, explanations and their code."""

    snippets: str
    """A folder of source files that problems start from and that are translated and explained, or one such file."""
    kinds: Annotated[dict[Kind, float], AfterValidator(some_share)] = {
        "feedback": 2.0,
        "translation": 1.0,
        "explained": 1.0,
    }
    """What is made, by weight: `feedback`, a problem, its solution and the corrections until its tests pass;
    `translation`, into another language, which prints the same; `explained`, an explanation from which the code was
    written again."""
    languages: tuple[str, ...] = ("python",)
    """Programming languages of the solutions, in turn: python, javascript, bash, c, c++, typescript, php."""
    targets: tuple[str, ...] = ("javascript", "c++")
    """Programming languages that is translated into, in turn; never into its own."""
    revisions: int = Field(2, ge=0)
    """How often a solution that fails may be corrected; 0 keeps only what passes at once."""
    least_tests: int = Field(3, ge=1)
    """Assertions of a solution's tests, at least; also lines that a translated program prints."""
    faithful: float = Field(8.0, ge=1, le=10)
    """The teacher's grade, 1 to 10, of the code that was written again from its explanation, at least."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a problem is like another one, and is dropped."""
    sampled: bool = True
    """Whether a problem in Python is also a prompt to be sampled, with its tests as the check."""

    @field_validator("languages", "targets")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or set(names) - set(LANGUAGES):
            raise ValueError(f"programming languages are {', '.join(LANGUAGES)}; name at least one")
        return names


def estimate(capability: str, config: CodeConfig, sizes: Mapping[str, Any]) -> Expected:
    """Of a problem three texts and the corrections; of a translation two; of an explanation three."""
    whole = sum(config.kinds.values())
    share = {kind: weight / whole for kind, weight in config.kinds.items()}
    begun = {kind: math.ceil(OVER_ASK * config.rows * one) for kind, one in share.items()}
    corrections = WRONG_FIRST * min(1, config.revisions)
    problems, others = begun.get("feedback", 0), begun.get("translation", 0) + begun.get("explained", 0)
    asked = problems * (3 + corrections) + 2 * begun.get("translation", 0) + 3 * begun.get("explained", 0)
    read = problems * (SNIPPET_TOKENS + 2 * PROBLEM_TOKENS + (1 + 2 * corrections) * SOLUTION_TOKENS)
    written = problems * (PROBLEM_TOKENS + (1 + corrections) * SOLUTION_TOKENS + TESTS_TOKENS)
    read, written = read + others * 3 * SNIPPET_TOKENS, written + others * (SOLUTION_TOKENS + TESTS_TOKENS)
    prompts = int(config.rows * share.get("feedback", 0)) if config.sampled and "python" in config.languages else 0
    return Expected(
        int(asked), read, written,
        {
            "prompts": Amount(prompts, prompts * PROBLEM_TOKENS),
            "rows": Amount(config.rows, config.rows * (PROBLEM_TOKENS + SOLUTION_TOKENS)),
        },
    )  # fmt: skip


def _linter(config: CodeConfig) -> str:
    """Another version finds other faults."""
    return f"ruff {version('ruff')}" if find_spec("ruff") else ""


PIPELINE = PipelineSpec(
    module="synth.pipelines.code",
    version=2,
    Config=CodeConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "code/problem": ("snippet", "language", "fence"),
        "code/solution": ("problem", "language", "mark"),
        "code/tests": ("problem", "code", "language", "mark", "use", "least"),
        "code/revise": ("problem", "answer", "tests", "feedback", "language", "mark", "use", "step"),
        "code/program": ("code", "language", "mark", "use", "least"),
        "code/translate": ("code", "program", "language", "mark", "target", "target_mark", "use"),
        "code/explain": ("code", "language", "fence"),
        "code/regenerate": ("explanation", "language", "mark"),
    },
    depends=_linter,
    data=lambda config: {"snippets": config.snippets},
)
