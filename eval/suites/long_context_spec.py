"""The suite `eval.suites.long_context`. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from eval.suites.spec import SuiteConfig, suite_spec
from posttrain.machine import Machine
from posttrain.stages import Scope, Size

Task = Literal[
    "needle", "multi_needle", "multi_value", "multi_query", "variable_tracking", "common_words", "frequent_words"
]
TASKS: tuple[Task, ...] = (
    "needle", "multi_needle", "multi_value", "multi_query", "variable_tracking", "common_words", "frequent_words",
)  # fmt: skip


class LongContextConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.long_context`."""

    n: int = Field(210, ge=1)
    """Prompts in all, the same number for each task and length as far as it goes."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens an answer may have (Llama 3.1's eval_details.md: 256)."""
    tokenizer: str = "base"
    """The model of `models:` whose tokenizer and template measure the lengths."""
    tasks: tuple[Task, ...] = Field(TASKS, min_length=1)
    """RULER's families. `multi_needle` hides four needles and asks for two of them, as Llama 3 does (P 5.2.6)."""
    lengths: tuple[int, ...] = Field((1024, 4096, 16_384), min_length=1)
    """Tokens of the prompts, with the template; each is met within 2 percent and never exceeded."""
    depths: int = Field(5, ge=1, le=40)
    """Places of a single needle from the beginning to the end of the text, evenly spaced."""

    @field_validator("lengths")
    @classmethod
    def _within_reach(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if min(lengths) < 256 or max(lengths) > 1 << 20:
            raise ValueError("a length is a number of tokens from 256 to 1,048,576")
        return lengths


def wire(config: LongContextConfig, scope: Scope) -> dict[str, Any]:
    return {"tokenizer": scope.model(config.tokenizer)}


def estimate(config: LongContextConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    tokens = config.n * sum(config.lengths) // len(config.lengths)
    return Size(rows=config.n, tokens=tokens, note=f"up to {max(config.lengths):,} tokens")


SPEC = suite_spec("long_context", LongContextConfig, wire, estimate)
