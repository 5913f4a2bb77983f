"""Supervised fine-tuning on the rows of a mix: cross entropy on the answer's tokens (Llama 3, 4.1.3)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from posttrain.config import operational
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from posttrain.train.settings import TrainingConfig, data_size, training_size


class SftConfig(TrainingConfig):
    """Prompts are context only; assistant turns are trained, each with its end-of-turn token."""

    shares_rows: ClassVar[bool] = True

    init: str = "base"
    """What it starts from: `base` (the paper: each round anew), `previous`, or a key of `models:`."""

    train: Literal["last", "all", "flagged"] = "last"
    """Which assistant turns are trained: the last (and those before it whose message says `train: true`, as the calls
    of an answer for which tools were run), all, or those whose message has no `train: false`. Tool results and what the
    user says never are."""
    packing: int = operational(0, ge=0)
    """Tokens of a sequence that rows are packed into, best fit first, each seeing itself only; 0 pads rows of similar
    length. The loss is the same; packing pays where `attention` knows documents, and costs where the mask is dense, as
    it is for `sdpa`."""
    attention: Literal["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = operational("sdpa")
    """The kernel, by transformers' name. All but `sdpa` know documents in packed sequences; the flash ones need their
    packages, and all of them CUDA."""


def wire(config: SftConfig, scope: Scope) -> dict[str, Any]:
    """The newest mix of this round, else all rows of this round, else the newest rows there are."""
    mixes, rows = scope.this_round("sft_data"), scope.this_round("rows")
    data = mixes[-1:] or rows or [scope.newest("rows")]
    return {"data": data, "init": scope.model(config.init)}


def estimate(config: SftConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    rows, tokens = data_size(sizes, data="rows")
    return training_size(config, rows, tokens, sizes["init"].parameters, machine, f"starts from {config.init}")


SPEC = StageSpec(
    module="posttrain.train.sft",
    version=2,
    Config=SftConfig,
    provides=lambda config: ("checkpoint",),
    wire=wire,
    estimate=estimate,
)
