"""Direct preference optimisation with Llama 3's two changes: format tokens masked, NLL on the chosen answer (4.1.4)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from posttrain import estimate as costs
from posttrain.config import operational
from posttrain.errors import UserError
from posttrain.machine import INLINE, Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.reference_spec import KIND, Pairs, kind_of, pair_inputs
from posttrain.train.settings import TrainingConfig, data_size, training_size

Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""The names of TRL's `DPOConfig.loss_type`; a test compares."""
TOGETHER = ("aot", "aot_unpaired", "sft")
"""Losses that sort or pool the pairs of a step, so that its parts cannot be computed apart."""
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
"""Losses that read `label_smoothing`."""
ONE_PROCESS = (INLINE, "one_gpu")


class DpoConfig(TrainingConfig):
    """`batch_size` counts prompts: a step sees all pairs of each of them, and its loss is the mean over these pairs."""

    init: str = "sft"
    """What it starts from: a stage of this round, `previous`, or a key of `models:`."""
    reference: str = "sft"
    """The model whose log-probabilities anchor the preference term. They are read from the `reference` stage of this
    round where there is one, and computed before training otherwise."""
    pairs: Pairs = "ranked"
    """Which pairs of this round: those `select` ranked, those `annotate` made, or both. A mix of pairs in this round
    has decided that, and is taken."""
    loss: Loss = "sigmoid"
    """The preference term: `sigmoid` is DPO's, as in Llama 3, 4.1.4; the others are TRL's, by its names and computed by
    its code (docs/training.md). `ipo` and `sigmoid_norm` (as SimPO) divide by the answers' tokens; `aot`,
    `aot_unpaired` and `sft` look at all pairs of a step at once and so run in one process and one pass."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference (Llama 3, 4.1.4)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs taken to be the wrong way round by `robust` and `exo_pair` (which needs some; its paper has 1e-3),
    `aot` and `aot_unpaired`; 0 is none."""
    nll_weight: float = Field(0.2, ge=0)
    """Weight of the chosen answer's negative log-likelihood per token (Llama 3, 4.1.4); 0 leaves the term out."""
    mask_format_tokens: bool = True
    """Leave the end-of-turn token of both answers out of the preference term (Llama 3, 4.1.4). Headers are
    part of the prompt and never enter it."""
    chunk: int = operational(64, ge=1)
    """Prompts whose reference log-probabilities are computed and kept together, where no `reference` stage has done it:
    what a killed stage loses of them at most."""

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> "DpoConfig":
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss exo_pair needs a label_smoothing above 0, such as 0.001")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing is read by {', '.join(SMOOTHED)}, and loss is {self.loss}")
        if self.loss in TOGETHER and self.launch not in ONE_PROCESS:
            raise ValueError(
                f"loss {self.loss} looks at all pairs of a step at once; launch it {' or '.join(ONE_PROCESS)}"
            )
        return self


def wire(config: DpoConfig, scope: Scope) -> dict[str, Any]:
    """Pairs, the model to start from, and the reference's log-probabilities or else the reference."""
    inputs = {**pair_inputs(config.pairs, scope), "init": scope.model(config.init)}
    fitting = scope.this_round(kind_of(config.reference, config.pairs))
    if scope.this_round(KIND) and not fitting:
        raise UserError(
            f"the reference here is {config.reference} on {config.pairs} pairs, and the reference stage before it has "
            "another model or other pairs; give both the same"
        )
    return inputs | ({"logprobs": fitting[-1]} if fitting else {"reference": scope.model(config.reference)})


def estimate(config: DpoConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """The training, and one forward pass of the reference where no stage before it has done that."""
    rows, tokens = data_size(sizes, pairs="pairs", preferences="preferences")
    parameters = sizes["init"].parameters
    size = training_size(config, rows, tokens, parameters, machine, f"reference: {config.reference}")
    once = 0 if "logprobs" in sizes else tokens
    seconds = size.seconds + costs.forward_seconds(parameters, once, machine)
    return Size(rows, size.tokens + once, parameters, size.memory, seconds, size.note)


SPEC = StageSpec(
    module="posttrain.train.dpo",
    version=3,
    Config=DpoConfig,
    provides=lambda config: ("checkpoint",),
    wire=wire,
    estimate=estimate,
)
