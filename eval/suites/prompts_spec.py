"""The suite `eval.suites.prompts`. Torch-free."""

from typing import Literal

from pydantic import Field

from eval.suites.spec import SuiteConfig, estimate, suite_spec, wire


class PromptsConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.prompts`: a file of one's own with a scorer's name."""

    path: str = Field(min_length=1)
    """A file of `prompt` or `messages` (and `tools`), each with a `reference`: a text or number, a list of them any of
    which is right, tool calls, or tests."""
    n: int = Field(100_000, ge=1)
    """Prompts at most, the first so many."""
    scorer: Literal[
        "exact", "numeric", "math", "needle", "recall", "short_answer", "choice", "tool_calls", "python_tests"
    ] = "exact"
    """What compares an answer with the reference; a record's own `check` goes before it."""


SPEC = suite_spec("prompts", PromptsConfig, wire, estimate)
