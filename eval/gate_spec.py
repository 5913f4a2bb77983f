"""The stage `eval.gate`: is the new checkpoint kept, or the one before? Torch-free."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import forward_memory, forward_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class DriftLimits(Config):
    """How far the answers themselves may move from the evaluation before; None does not look."""

    length: float | None = Field(None, gt=0)
    """Of the mean tokens of an answer, as a share: 0.3 allows 30 percent more or fewer."""
    refusals: float | None = Field(None, ge=0, le=1)
    """More answers that refuse where they should not, as a share of answers."""
    language: float | None = Field(None, ge=0, le=1)
    """More answers in another language than the prompt's, as a share of those whose language can be told."""
    repetition: float | None = Field(None, ge=0, le=1)
    """More words that only repeat, as a share (runs of four words that an answer has already had)."""
    kl: float | None = Field(None, gt=0)
    """Kullback-Leibler divergence of the new checkpoint from the one before, in nats a token of its own answers. It
    loads both checkpoints at once."""
    kl_answers: int = Field(256, ge=1)
    """Answers that it is measured on at most, spread evenly over the prompts."""

    @property
    def limits(self) -> dict[str, float]:
        """Measure → limit, of those that are looked at."""
        given = {name: getattr(self, name) for name in ("length", "refusals", "language", "repetition", "kl")}
        return {name: limit for name, limit in given.items() if limit is not None}


class GateConfig(Config):
    """The recipe's `gate:` section."""

    no_worse_than_previous: Literal["all", "none"] | tuple[str, ...] = "all"
    """What must not fall: `all` (overall and every capability, which every suite is), a list of them (`overall` counts
    as one), or `none` (the comparison is written down and nothing is refused)."""
    margin: float = Field(0.02, ge=0, le=1)
    """The loss of accuracy (0.02 is two points of a hundred) that is tolerated: the gate fails when the upper end of
    the paired 95% interval lies below −margin. Where more than one thing is guarded the interval is wider, so that
    the whole gate fails in at most 5 percent of rounds in which nothing has changed (docs/evaluation.md)."""
    minimum: dict[str, float] = {}
    """Capability, or `overall` → the least accuracy that a checkpoint must have, whatever the one before had."""
    drift: DriftLimits = DriftLimits()
    """The gate fails when the interval of a change lies wholly beyond its limit."""
    on_fail: Literal["stop", "keep_previous", "warn"] = "keep_previous"
    """`stop` ends the run (exit code 4), `keep_previous` goes on with the model before, `warn` with the new one."""


def wire(config: GateConfig, scope: Scope) -> dict[str, Any]:
    candidates = scope.this_round("checkpoint")
    if not candidates:
        raise UserError(f"{scope.name}: no stage before it in this round makes a checkpoint to judge")
    evaluation = scope.newest("evaluation")
    if evaluation.inputs.get("model") is not candidates[-1]:
        raise UserError(
            f"{scope.name}: the newest checkpoint, {candidates[-1].name}, is not evaluated last; "
            f"end the list `evaluate.after` with {candidates[-1].name}"
        )
    return {
        "candidate": candidates[-1],
        "evaluation": evaluation,
        "prompts": evaluation.inputs.get("prompts"),
        "previous": scope.model("previous"),
        "previous_evaluation": _previous_evaluation(scope),
    }


def _previous_evaluation(scope: Scope) -> Any:
    """The evaluation of what the round before kept, or the newest from before this round, or None."""
    earlier = [node for node in scope.all_rounds("evaluation") if node.round < scope.round]
    kept = scope.newest("evaluation_kept", optional=True)
    if kept is not None and (not earlier or kept.round >= earlier[-1].round):
        return kept
    return earlier[-1] if earlier else None


def estimate(config: GateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Files are linked, not copied, so it costs next to nothing; a limit on the divergence reads some answers again,
    with both checkpoints in memory."""
    evaluation, parameters = sizes["evaluation"], sizes["candidate"].parameters
    size = Size(
        rows=evaluation.rows,
        parameters=parameters,
        note=f"margin {config.margin:g}, {config.on_fail.replace('_', ' ')}",
    )
    if config.drift.kl is None:
        return size
    prompts = sum(part.tokens for part in sizes["prompts"])
    share = min(1.0, config.drift.kl_answers / max(1, evaluation.rows))
    seconds = forward_seconds(2 * parameters, share * (prompts + evaluation.tokens), machine)
    return replace(size, seconds=seconds, memory=2 * forward_memory(parameters))


SPEC = StageSpec(
    module="eval.gate",
    version=2,
    Config=GateConfig,
    provides=lambda config: ("checkpoint", "evaluation_kept"),
    wire=wire,
    estimate=estimate,
)
