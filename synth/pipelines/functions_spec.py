"""`from: functions`: zero-shot function calling with tools mined from Python source. Torch-free."""

import platform
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from posttrain.stages import Amount
from synth.sources import Expected, PipelineSpec, some_share
from synth.tools.spec import ToolDialogsConfig

Kind = Literal["simple", "parallel", "nested", "turns", "unneeded", "missing", "inactive"]
STDLIB = "stdlib"
"""In place of a tree: the standard library of the Python that runs this."""
OVER_ASK = 1.5
"""Tries for one dialog that is wanted. Of single calls in the paper's data 30% were filtered (P 4.3.5)."""
ARGUMENTS_EACH = 3
"""Sets of arguments that the teacher makes up for a function without calls in its tree."""
TOOLS_TOKENS, QUERY_TOKENS, CALL_TOKENS, ANSWER_TOKENS = 600, 40, 40, 60
"""The definitions that are offered, a request, a call with its result, and an answer in text."""


class FunctionsConfig(ToolDialogsConfig):
    """Requests, calls, results and answers with functions that are really called."""

    tree: str = STDLIB
    """A folder of Python source whose documented functions are the tools, seen from the recipe's folder; `stdlib` is
    the standard library of the Python that runs this. Each module of a folder must work alone in the sandbox for its
    functions to be run."""
    kinds: Annotated[dict[Kind, float], AfterValidator(some_share)] = {
        "simple": 0.35, "parallel": 0.2, "nested": 0.1, "turns": 0.15, "unneeded": 0.1, "missing": 0.05,
        "inactive": 0.05,
    }  # fmt: skip
    """Shares of the dialogs: one call; two or three at once; a call with the result of another; several turns with a
    user whom the teacher plays; tools that are not needed; the needed tool not among those offered; no tool offered."""
    distractors: int = Field(3, ge=0)
    """Tools offered beside the needed ones at most; how many is drawn evenly from 0."""
    turns: int = Field(3, ge=2)
    """Turns of the user in a dialog of kind `turns` at most; how many is drawn evenly from 2."""
    most_calls: int = Field(4, ge=1)
    """Messages with calls in a row after which a dialog is given up."""
    like: float = Field(0.8, gt=0, le=1)
    """Share of common pairs of words at which a request is like another one, and is dropped."""


def estimate(capability: str, config: FunctionsConfig, sizes: Mapping[str, Any]) -> Expected:
    """For each try a request, a call and an answer, and for each turn of a longer dialog the same."""
    tries = config.rows * OVER_ASK
    longer = config.kinds.get("turns", 0.0) / sum(config.kinds.values()) * (config.turns - 1)
    rounds = tries * (1 + longer)
    graded = tries if config.least else 0
    pairs = int(config.pairs * config.rows / 2)
    read = rounds * 3 * (TOOLS_TOKENS + QUERY_TOKENS) + (graded + 3 * 2 * pairs) * TOOLS_TOKENS
    written = rounds * (QUERY_TOKENS + CALL_TOKENS + ANSWER_TOKENS) + graded * ANSWER_TOKENS
    bare = config.rows - pairs if config.sampled else 0
    dialog = TOOLS_TOKENS + int((1 + longer) * (QUERY_TOKENS + CALL_TOKENS + ANSWER_TOKENS))
    return Expected(
        int(3 * rounds + graded + 6 * pairs), read, written,
        {
            "prompts": Amount(bare, bare * (TOOLS_TOKENS + QUERY_TOKENS)),
            "rows": Amount(config.rows, config.rows * dialog),
            "preferences": Amount(pairs, pairs * (dialog + ANSWER_TOKENS)),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.functions",
    version=2,
    Config=FunctionsConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "functions/arguments": ("definition", "count"),
        "functions/query": ("definitions", "calls"),
        "functions/nested": ("call", "result", "definition"),
        "functions/other_query": ("definitions", "subject"),
        "functions/user_turn": ("definitions", "conversation", "subject"),
        "functions/result": ("definition", "conversation", "call"),
    },
    data=lambda config: {} if config.tree == STDLIB else {"tree": config.tree},
    pairs=lambda config: config.pairs > 0,
    depends=lambda config: f"python {platform.python_version()}" if config.tree == STDLIB else "",
)
