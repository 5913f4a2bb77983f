"""The reference model's log-probabilities of all answers that DPO compares, as an artifact of their own."""

from collections.abc import Mapping
from typing import Any, Literal

from posttrain import estimate as costs
from posttrain.config import operational
from posttrain.machine import INLINE, Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import RowsConfig, data_size

Pairs = Literal["ranked", "annotated", "both"]
KIND = "reference_logprobs"


class ReferenceConfig(RowsConfig):
    """What the log-probabilities depend on besides the rows. Nothing of it is DPO's rate, beta or loss."""

    model: str = "sft"
    """The reference, as in `dpo.reference`: a stage of this round, `previous`, or a key of `models:`."""
    pairs: Pairs = "ranked"
    """Which pairs of this round, as in `dpo.pairs`."""
    chunk: int = operational(64, ge=1)
    """Prompts whose log-probabilities are computed and kept together: what a killed stage loses at most, of each of its
    processes."""
    launch: str = operational(INLINE)
    """How its processes are started, as in `dpo.launch`; they share the prompts. `zero3` and `fsdp2` also share the
    model, where it is larger than a device."""


def kind_of(model: str, pairs: str) -> str:
    """What the stage provides besides `KIND`, so that DPO finds the one that fits it."""
    return f"{KIND} of {model} on {pairs}"


def pair_inputs(pairs: Pairs, scope: Scope) -> dict[str, Any]:
    """The newest mix of pairs of this round; else its pairs, else the newest there are (a recipe that only reads)."""
    if mixes := scope.this_round("dpo_data"):
        return {"pairs": mixes[-1:]}
    inputs: dict[str, Any] = {}
    if pairs in ("ranked", "both"):
        inputs["pairs"] = scope.this_round("pairs") or [scope.newest("pairs")]
    if pairs in ("annotated", "both"):
        inputs["preferences"] = scope.this_round("preferences") or [scope.newest("preferences")]
    return inputs


def wire(config: ReferenceConfig, scope: Scope) -> dict[str, Any]:
    return {**pair_inputs(config.pairs, scope), "init": scope.model(config.model)}


def estimate(config: ReferenceConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """One forward pass over the pairs, in float32."""
    rows, tokens = data_size(sizes, pairs="pairs", preferences="preferences")
    parameters = sizes["init"].parameters
    seconds = costs.forward_seconds(parameters, tokens, machine)
    return Size(rows, tokens, parameters, 2 * costs.forward_memory(parameters), seconds, f"of {config.model}")


SPEC = StageSpec(
    module="posttrain.train.reference",
    version=1,
    Config=ReferenceConfig,
    provides=lambda config: (KIND, kind_of(config.model, config.pairs)),
    wire=wire,
    estimate=estimate,
)
