"""The suite `eval.suites.tool_use`. Torch-free."""

from typing import Literal

from pydantic import Field

from eval.suites.spec import FileSuiteConfig, suite_spec

Category = Literal["simple", "multiple", "parallel", "parallel_multiple", "irrelevance", "relevance"]
CATEGORIES: tuple[Category, ...] = (
    "simple", "multiple", "parallel", "parallel_multiple", "irrelevance", "relevance",
)  # fmt: skip


class ToolUseConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.tool_use`. Its file holds BFCL's records, `question` and
    `function`, with their `ground_truth` beside them (none: `category` says irrelevance or relevance)."""

    categories: tuple[Category, ...] = Field(CATEGORIES, min_length=1)
    """Which of BFCL's categories are made, `n` shared out evenly; of no account with a file."""


SPEC = suite_spec("tool_use", ToolUseConfig)
