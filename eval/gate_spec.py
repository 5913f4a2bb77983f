"""The stage `eval.gate`: is the new checkpoint kept, or the one before? Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec


class GateConfig(Config):
    """The recipe's `gate:` section."""

    no_worse_than_previous: Literal["all", "none"] | tuple[str, ...] = "all"
    """What must not fall: `all` (overall and every capability), a list of capabilities (`overall` counts as one), or
    `none` (the comparison is written down and nothing is refused)."""
    margin: float = Field(0.02, ge=0, le=1)
    """The loss of accuracy (0.02 is two points of a hundred) that is tolerated: the gate fails when the upper end of
    the paired 95% interval lies below −margin."""
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
        "prompts": scope.newest("eval_prompts"),
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
    """Files are linked, not copied, so it costs next to nothing."""
    return Size(
        rows=sizes["evaluation"].rows,
        parameters=sizes["candidate"].parameters,
        note=f"margin {config.margin:g}, {config.on_fail.replace('_', ' ')}",
    )


SPEC = StageSpec(
    module="eval.gate",
    version=1,
    Config=GateConfig,
    provides=lambda config: ("checkpoint", "evaluation_kept"),
    wire=wire,
    estimate=estimate,
)
