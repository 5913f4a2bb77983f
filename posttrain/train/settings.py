"""What every training stage's config has in common, and what training costs. Imported by the plan, so without torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from posttrain import estimate
from posttrain.config import Config, operational
from posttrain.machine import Machine
from posttrain.stages import Size

Schedule = Literal["linear", "cosine", "constant"]
OverLength = Literal["error", "drop", "truncate_context"]
OTHERS = "others"
"""The key of `over_length` for sources it does not name."""


class TrainingConfig(Config):
    """AdamW with betas 0.9 and 0.999, as in TRL. Micro-batch and accumulation follow from `machine.micro_batch`."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak rate; 1e-5 is the paper's for its largest models (Llama 3, 4.1.3 and 4.1.4), smaller ones take more."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(32, ge=1)
    """Rows (prompts with all their pairs, where preferences are trained) an optimiser step sees, over all devices and
    accumulated micro-batches."""
    max_length: int = Field(0, ge=0)
    """Longest row in tokens with its answer; `over_length` says what is done with a longer one. 0 takes the model's
    context length."""
    over_length: dict[str, OverLength] = {}
    """Source of rows → what is done with those longer than `max_length`: `error` names them and stops, `drop` leaves
    them out, `truncate_context` cuts their oldest exchanges, never the answer, the system turn, or a tool call from its
    result. `others` holds for sources not named; a plain word is short for that. Empty is `error`."""
    preflight_rows: int = operational(64, ge=0)
    """Rows, drawn by the seed, that the preflight renders a second time with transformers; every row passes the other
    checks. 0 renders only those a second time that were truncated or hold control-token text."""
    schedule: Schedule = "linear"
    """How the rate falls after warm-up: to zero in a line or a half cosine, or not at all."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; 0 starts at the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled decay a step, times the rate; 0 is none."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this global norm; 0 leaves them."""

    @field_validator("over_length", mode="before")
    @classmethod
    def _one_policy_for_all(cls, value: Any) -> Any:
        return {OTHERS: value} if isinstance(value, str) else value


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
