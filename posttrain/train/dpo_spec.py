"""Direct preference optimisation with Llama 3's two changes: format tokens masked, NLL on the chosen answer (4.1.4)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain import estimate as costs
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import TrainingConfig, data_size, training_size


class DpoConfig(TrainingConfig):
    """`batch_size` counts prompts: a step sees all pairs of each of them, and its loss is the mean over these pairs."""

    init: str = "sft"
    """What it starts from: a stage of this round, `previous`, or a key of `models:`."""
    reference: str = "sft"
    """The model whose log-probabilities anchor the preference term; computed once, before training."""
    pairs: Literal["ranked", "annotated", "both"] = "ranked"
    """Which pairs of this round: those `select` ranked, those `annotate` made, or both. A mix of pairs in this round
    has decided that, and is taken."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference (Llama 3, 4.1.4)."""
    nll_weight: float = Field(0.2, ge=0)
    """Weight of the chosen answer's negative log-likelihood per token (Llama 3, 4.1.4); 0 leaves the term out."""
    mask_format_tokens: bool = True
    """Leave the end-of-turn token of both answers out of the preference term (Llama 3, 4.1.4). Headers are
    part of the prompt and never enter it."""
    chunk: int = Field(64, ge=1)
    """Prompts whose reference log-probabilities are computed and kept together: what a killed stage loses at most."""


def wire(config: DpoConfig, scope: Scope) -> dict[str, Any]:
    """The newest mix of pairs of this round; else its pairs, else the newest there are (a recipe that only reads)."""
    inputs: dict[str, Any] = {}
    mixes = scope.this_round("dpo_data")
    if mixes:
        return {"pairs": mixes[-1:], "init": scope.model(config.init), "reference": scope.model(config.reference)}
    if config.pairs in ("ranked", "both"):
        inputs["pairs"] = scope.this_round("pairs") or [scope.newest("pairs")]
    if config.pairs in ("annotated", "both"):
        inputs["preferences"] = scope.this_round("preferences") or [scope.newest("preferences")]
    return {**inputs, "init": scope.model(config.init), "reference": scope.model(config.reference)}


def estimate(config: DpoConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """One forward pass of the reference and the training; a pair is two rows."""
    rows, tokens = data_size(sizes, pairs="pairs", preferences="preferences")
    parameters = sizes["init"].parameters
    size = training_size(config, rows, tokens, parameters, machine, f"reference: {config.reference}")
    once = costs.forward_seconds(parameters, tokens, machine)
    return Size(rows, size.tokens + tokens, parameters, size.memory, size.seconds + once, size.note)


SPEC = StageSpec(
    module="posttrain.train.dpo",
    version=2,
    Config=DpoConfig,
    provides=lambda config: ("checkpoint",),
    wire=wire,
    estimate=estimate,
)
