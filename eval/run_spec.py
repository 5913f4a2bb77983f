"""The stage `eval.run`: answers to every suite's prompts, graded, with intervals. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config, operational
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec

PART = "evaluation_part"
"""What the answers to one suite of several are provided as."""
JUDGED = "eval.suites.chat"


class EvaluateConfig(Config):
    """The recipe's `evaluate:` section. The suites are all stages before it that make evaluation prompts: `heldout`,
    `read` of format heldout, and `stage: eval.suites.…`."""

    after: tuple[str, ...] = operational(("dpo",), min_length=1)
    """The stages whose checkpoints are evaluated, or names from `models:` (in `setup:` it is `[base]`). It only says
    which evaluations there are; what each depends on is its model, which is an input."""
    max_new_tokens: int = Field(128, ge=1)
    """Tokens an answer to a held-out prompt may have; a longer one is cut and graded as it stands. Suites have their
    own."""
    chunk: int = Field(256, ge=1)
    """Prompts answered between two writes to disk."""
    judge: str | None = None
    """The model that compares answers for `eval.suites.chat`: a key of `models:`; None has no such suite."""
    judge_max_new_tokens: int = Field(1024, ge=1)
    """Tokens the judge has for its reasons and its verdict."""


def expand(config: EvaluateConfig, scope: Scope) -> list[str]:
    """One instance a checkpoint. Where there are several suites, each suite's answers are an instance of their own
    before it, so that another suite leaves them as they are."""
    suites = scope.all_rounds("eval_prompts")
    parts = [label(suite) for suite in suites] if len(suites) > 1 else []
    return [name for model in config.after for name in (*(f"{model}.{suite}" for suite in parts), model)]


def label(suite: Any) -> str:
    """A suite's name among the parts: its stage's, with the round where it is made in one."""
    return f"{suite.name}-{suite.round}" if suite.round else str(suite.name)


def part(config: EvaluateConfig, instance: str) -> str:
    return "" if instance in config.after else PART


def wire(config: EvaluateConfig, scope: Scope) -> dict[str, Any]:
    scope.newest("eval_prompts")  # says what is missing where there is none
    suites = scope.all_rounds("eval_prompts")
    if scope.instance not in config.after:
        return _wire_part(config, scope, suites)
    own = [node for node in scope.this_round(PART) if node.name.startswith(f"{scope.name}-{scope.instance}.")]
    return {
        "prompts": suites,
        "model": scope.model(scope.instance, served=True),
        "parts": own or None,
        "before": scope.newest("evaluation", optional=True),
        "contamination": scope.newest("contamination", optional=True),
        "judge": None if own else _judge(config, scope, suites[0]),
    }


def _wire_part(config: EvaluateConfig, scope: Scope, suites: list[Any]) -> dict[str, Any]:
    named = {f"{model}.{label(suite)}": (model, suite) for model in config.after for suite in suites}
    model, suite = named[scope.instance]
    judge = _judge(config, scope, suite)
    return {"suite": suite, "model": scope.model(model, served=True), "judge": judge}


def _judge(config: EvaluateConfig, scope: Scope, suite: Any) -> Any:
    """The judge, for the one suite that needs it."""
    if suite.spec.module != JUDGED:
        return None
    if config.judge is None:
        raise UserError(f"the suite {suite.name} needs a judge; name a model at {scope.name}.judge")
    return scope.model(config.judge, served=True)


def estimate(config: EvaluateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every prompt is read once, and answers are written as long as their suite expects them."""
    suites, model = [sizes["suite"]] if "suite" in sizes else sizes["prompts"], sizes["model"]
    if "parts" in sizes:
        rows = sum(size.rows for size in sizes["parts"])
        return Size(rows=rows, parameters=model.parameters, note=f"of {len(suites)} suites")
    answers = [
        size.of("answers") if "answers" in size.made else Amount(size.rows, held_out(config, size.rows))
        for size in suites
    ]
    read, written = sum(size.tokens for size in suites), sum(answer.tokens for answer in answers)
    judges = [sizes["judge"]] if sizes.get("judge") else []
    verdicts = sum(answer.rows for answer in answers) * answer_tokens(config.judge_max_new_tokens)
    return Size(
        rows=sum(answer.rows for answer in answers),
        tokens=written,
        parameters=model.parameters,
        memory=forward_memory(model.parameters),
        seconds=generation_seconds(model.parameters, read, written, machine),
        cost=model.charges(read, written) + sum(judge.charges(read + written, verdicts) for judge in judges),
    )


def held_out(config: EvaluateConfig, rows: int) -> int:
    """Tokens of the answers to so many held-out prompts."""
    return int(rows * answer_tokens(config.max_new_tokens))


SPEC = StageSpec(
    module="eval.run",
    version=2,
    Config=EvaluateConfig,
    provides=lambda config: ("evaluation",),
    wire=wire,
    estimate=estimate,
    expand=expand,
    part=part,
)
