"""What the specs of suites share. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec

PROMPT_TOKENS = 120
"""What a prompt takes, for the plan, where a suite does not know better."""
UNKNOWN_TOKENS = 256
"""What an answer may have, for the plan, where each task of a suite says that for itself."""


class SuiteConfig(Config):
    """What every suite has."""

    n: int = Field(200, ge=1)
    """Prompts at most: of a file the first so many, else so many are made."""
    seed: int = Field(0, ge=0)
    """Which prompts are made; apart from the recipe's seed, so that all runs are measured on the same ones."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens an answer may have."""


class FileSuiteConfig(SuiteConfig):
    """A suite that a file may fill."""

    path: str | None = None
    """A file of prompts (.jsonl, .jsonl.gz, .json, .parquet) as docs/evaluation.md shows; None makes small ones."""


def wire(config: Any, scope: Scope) -> dict[str, Any]:
    path = getattr(config, "path", None)
    if path == "":
        raise UserError(f"{scope.name}.path is empty; name a file of prompts")
    return {"file": scope.data(path)} if path else {}


def estimate(config: Any, sizes: Mapping[str, Any], machine: Machine) -> Size:
    if "file" not in sizes:
        return Size(rows=config.n, tokens=config.n * PROMPT_TOKENS, note="made")
    file = sizes["file"]
    rows = min(config.n, file.rows or config.n)
    return Size(rows=rows, tokens=file.tokens * rows // max(1, file.rows), note=f"from {config.path}")


def suite_spec(
    name: str,
    config: type[SuiteConfig],
    wire: Callable[[Any, Scope], dict[str, Any]] = wire,
    estimate: Callable[[Any, Mapping[str, Any], Machine], Size] = estimate,
) -> StageSpec:
    """The spec of the suite in `eval.suites.<name>`; what its answers will take is added to its estimate."""

    def with_answers(config: Any, sizes: Mapping[str, Any], machine: Machine) -> Size:
        size = estimate(config, sizes, machine)
        return replace(size, made={**size.made, "answers": answers(config, size.rows)})

    return StageSpec(
        module=f"eval.suites.{name}", version=1, Config=config, provides=lambda config: ("eval_prompts",),
        wire=wire, estimate=with_answers,
    )  # fmt: skip


def answers(config: Any, rows: int) -> Amount:
    """The answers to so many prompts of a suite: several where it samples, of two messages for each turn of a dialog,
    and none that is written where likelihoods are compared."""
    rows *= getattr(config, "samples", 1)
    if getattr(config, "by", "") == "likelihood":
        return Amount(rows)
    messages = 2 * getattr(config, "turns", 0) or 1
    return Amount(rows, int(rows * messages * answer_tokens(config.max_new_tokens or UNKNOWN_TOKENS)))
