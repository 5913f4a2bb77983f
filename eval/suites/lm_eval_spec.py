"""The suite `eval.suites.lm_eval`. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from eval.suites.spec import PROMPT_TOKENS, SuiteConfig, suite_spec
from posttrain.machine import Machine
from posttrain.stages import Scope, Size

TASK_PROMPTS = 1000
"""Prompts of a task, for the plan: nobody knows before it is loaded."""
NAMED = 2
"""Tasks that the plan names."""


class LmEvalConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.lm_eval`: tasks of the harness lm-eval, which makes the prompts
    and grades the answers. `pip install posttrain[lm-eval]`."""

    n: int = Field(100_000, ge=1)
    """Prompts of each task at most, the first so many."""
    seed: int = Field(1234, ge=0)
    """Which examples are shown, where a task draws them; 1234 is the harness's own."""
    max_new_tokens: int = Field(0, ge=0)
    """Tokens an answer may have; 0 leaves it to each task."""
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks, groups or tags, of the harness's own or in `include`."""
    include: str | None = None
    """A folder of task files of one's own, which is copied into the suite: data files they name are looked for in it.
    Task files are code and run as such. None has only the harness's own tasks."""
    shots: int | None = Field(None, ge=0)
    """Examples shown before each question, as turns of the conversation; None leaves it to each task."""
    system: str = ""
    """A system message before each prompt."""
    metric: str = ""
    """What grades a prompt: a metric of the tasks, or `metric,filter`; empty takes each task's first."""


def wire(config: LmEvalConfig, scope: Scope) -> dict[str, Any]:
    return {"include": scope.data(config.include)} if config.include else {}


def estimate(config: LmEvalConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    rows = len(config.tasks) * min(config.n, TASK_PROMPTS)
    more = f" and {len(config.tasks) - NAMED} more" if len(config.tasks) > NAMED else ""
    note = ", ".join(config.tasks[:NAMED]) + more
    return Size(rows=rows, tokens=rows * PROMPT_TOKENS * (1 + (config.shots or 0)), note=note)


SPEC = suite_spec("lm_eval", LmEvalConfig, wire, estimate)
