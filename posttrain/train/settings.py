"""What every training stage's config has in common, and what training costs. Imported by the plan, so without torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain import estimate
from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Size

Schedule = Literal["linear", "cosine", "constant"]


class TrainingConfig(Config):
    """AdamW with betas 0.9 and 0.999, as in TRL. Micro-batch and accumulation follow from `machine.micro_batch`."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak rate; 1e-5 is the paper's for its largest models (Llama 3, 4.1.3 and 4.1.4), smaller ones take more."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(32, ge=1)
    """Rows (pairs, where pairs are trained) an optimiser step sees, over all devices and accumulated micro-batches."""
    max_length: int = Field(0, ge=0)
    """Longest row in tokens with its answer; a longer one is refused, never cut. 0 takes the model's context length."""
    schedule: Schedule = "linear"
    """How the rate falls after warm-up: to zero in a line or a half cosine, or not at all."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; 0 starts at the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled decay a step, times the rate; 0 is none."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this global norm; 0 leaves them."""


def listed(size: Any) -> list[Size]:
    """An input's sizes as a list, whether the plan gave one, several or none."""
    if size is None:
        return []
    return list(size) if isinstance(size, list | tuple) else [size]


def training_size(config: TrainingConfig, rows: int, tokens: int, parameters: int, machine: Machine, note: str) -> Size:
    """What a training over `rows` of `tokens` in all costs; `posttrain.estimate` has the formulas."""
    passed = tokens * config.epochs
    micro_tokens = machine.micro_batch * tokens // max(1, rows)
    return Size(
        rows=rows,
        tokens=passed,
        parameters=parameters,
        memory=estimate.training_memory(parameters, micro_tokens),
        seconds=estimate.training_seconds(parameters, passed, machine),
        note=note,
    )


def data_size(sizes: Mapping[str, Any], *names: str) -> tuple[int, int]:
    """Rows and tokens of the named inputs together."""
    found = [size for name in names for size in listed(sizes.get(name))]
    return sum(size.rows for size in found), sum(size.tokens for size in found)
