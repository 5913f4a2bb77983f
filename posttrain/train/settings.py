"""What every training stage's config has in common, and what training costs. Imported by the plan, so without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from posttrain import estimate
from posttrain.config import Config, operational
from posttrain.machine import INLINE, Machine
from posttrain.stages import Amount, Size

Schedule = Literal["linear", "cosine", "constant"]
OverLength = Literal["error", "drop", "truncate_context"]
Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "swanlab"]
"""Of transformers' integrations those that log training."""
OTHERS = "others"
"""The key of `over_length` for sources it does not name."""


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2021, 2106.09685), merged into the weights when the stage ends."""

    rank: int = Field(16, ge=1)
    """Rows of each pair of adapter matrices."""
    alpha: float = Field(32.0, gt=0)
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is zeroed in training; 0 is none."""
    targets: tuple[str, ...] = ()
    """Names of the layers that are adapted; empty is every linear layer but the output."""
    four_bit: bool = False
    """Hold the frozen weights in 4 bits while training (QLoRA, Dettmers et al. 2023, 2305.14314). Needs a CUDA device;
    the adapters are merged into the unquantised weights."""


class RowsConfig(Config):
    """How rows are fitted to a model's context, wherever they are rendered."""

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

    @field_validator("over_length", mode="before")
    @classmethod
    def _one_policy_for_all(cls, value: Any) -> Any:
        return {OTHERS: value} if isinstance(value, str) else value


class TrainingConfig(RowsConfig):
    """AdamW with betas 0.9 and 0.999, as in TRL. Micro-batch and accumulation follow from `machine.train_tokens`."""

    shares_rows: ClassVar[bool] = False
    """Whether several processes can share a row of this stage, as long rows need."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak rate; 1e-5 is the paper's for its largest models (Llama 3, 4.1.3 and 4.1.4), smaller ones take more."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(32, ge=1)
    """Rows (prompts with all their pairs, where preferences are trained) an optimiser step sees, over all devices and
    accumulated micro-batches."""
    schedule: Schedule = "linear"
    """How the rate falls after warm-up: to zero in a line or a half cosine, or not at all."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; 0 starts at the peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled decay a step, times the rate; 0 is none."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this global norm; 0 leaves them."""

    lora: LoraConfig | None = None
    """Train adapters instead of all weights; none trains all."""
    snapshots: int = Field(0, ge=0)
    """Weights kept of this many evenly spaced steps, the last one included, for an `average` over the run; 0 keeps
    only the last, as the checkpoint."""
    max_loss_ratio: float = operational(3.0, ge=0)
    """The run counts as diverging, and stops, when the median loss of ten steps is above this many times that of the
    first ten; 0 never stops it."""
    activations: Literal["auto", "keep", "recompute", "offload"] = operational("auto")
    """What becomes of the values the backward pass needs: kept; recomputed layer by layer, which takes a third more
    time and leaves each layer's input only; or those also moved to CPU memory (CUDA only). `auto` recomputes on CUDA
    and keeps on the CPU."""
    launch: str = operational(INLINE)
    """How its processes are started: `inline` in the run's own worker, or by accelerate with a config of
    recipes/accelerate (docs/training.md) or one of your own, `path/to/config.yaml`."""
    save_steps: int = operational(0, ge=0)
    """Steps between two checkpoints that a killed stage goes on from. 0 goes by time: every five minutes, and seldom
    enough to cost at most two in a hundred; a stage that is shorter keeps none unless it is asked to stop."""
    report_to: tuple[Tracker, ...] = operational(())
    """Where transformers also sends the log, each by its own package; empty is nowhere."""

    @model_validator(mode="after")
    def _adapters_stand_alone(self) -> "TrainingConfig":
        if self.lora and self.snapshots:
            raise ValueError("snapshots are of whole weights; leave them out where lora trains adapters")
        return self


def listed(size: Any) -> list[Size]:
    """An input's sizes as a list, whether the plan gave one, several or none."""
    if size is None:
        return []
    return list(size) if isinstance(size, list | tuple) else [size]


def training_size(config: TrainingConfig, rows: int, tokens: int, parameters: int, machine: Machine, note: str) -> Size:
    """What a training over `rows` of `tokens` in all costs; `posttrain.estimate` has the formulas."""
    passed = tokens * config.epochs
    micro_tokens = min(machine.train_tokens, config.batch_size * tokens // max(1, rows))
    return Size(
        rows=rows,
        tokens=passed,
        parameters=parameters,
        memory=estimate.training_memory(parameters, micro_tokens),
        seconds=estimate.training_seconds(parameters, passed, machine),
        note=note,
    )


def pairs_amount(pairs: int, prompts: float, prompt_tokens: float, answer_tokens: float) -> Amount:
    """Pairs of so many prompts and the tokens that training reads of them: each prompt once, and each answer once.

    The answers of a prompt's pairs are taken as one more than these pairs.
    """
    prompts = min(prompts, pairs)
    return Amount(pairs, int(prompts * prompt_tokens + (pairs + prompts) * answer_tokens))


def data_size(sizes: Mapping[str, Any], **kinds: str) -> tuple[int, int]:
    """Rows and tokens of the named inputs together; the value of a name is the kind that is read of it."""
    found = [size.of(kind) for name, kind in kinds.items() for size in listed(sizes.get(name))]
    return sum(amount.rows for amount in found), sum(amount.tokens for amount in found)
