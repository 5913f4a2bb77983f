"""What our trainers add to TRL's: a fixed order of batches, a loss over the whole global batch, progress and a log."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback

from posttrain.engines.loading import Loaded, choose_device
from posttrain.errors import StageFailed
from posttrain.stages import Job
from posttrain.train.batches import LENGTH_STEP, GlobalBatches, PairCollator, length, micro_batch

Arguments = TypeVar("Arguments")

LOG_FILE = "training.jsonl"
"""One line a step. It holds no times, so that the same training writes the same file."""


class GlobalBatchMixin:
    """Mixed into a TRL trainer whose `compute_loss` returns a sum over a micro-batch divided by `num_items_in_batch`.

    These are the items (tokens or pairs) of the global batch, so micro-batches of any size add up to the same loss.
    """

    loss_is_scaled_for_ga = True
    order: GlobalBatches
    accelerator: Any
    _metrics: Any

    def items(self, batch: dict[str, torch.Tensor]) -> int:
        """What the loss of a micro-batch is a sum over."""
        raise NotImplementedError

    def _get_train_sampler(self, train_dataset: Any = None) -> GlobalBatches:
        return self.order

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        own = torch.tensor(sum(self.items(batch) for batch in batch_samples), device=device)
        total: torch.Tensor = self.accelerator.gather(own).sum()
        return total

    def share(self, total: torch.Tensor, items: Any) -> torch.Tensor:
        """A micro-batch's part of the global mean, times the processes, over which gradients are averaged."""
        return total / items * self.accelerator.num_processes

    def note(self, **values: float) -> None:
        """Put values into the next line of the log, as means over the micro-batches."""
        for name, value in values.items():
            self._metrics["train"][name].append(value)

    def _send_telemetry(self) -> None:
        """TRL tells its makers of every training; a run on private data makes no call of its own."""


class Reporter(TrainerCallback):
    """Writes the log, reports progress (which stops when the run is asked to), refuses a loss that is no number."""

    def __init__(self, job: Job):
        self.job = job
        self.tokens_told = 0
        self.lines: list[dict[str, Any]] = []
        self.path = job.folder / LOG_FILE
        self.path.write_text("", encoding="utf-8")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tokens, self.tokens_told = state.num_input_tokens_seen - self.tokens_told, state.num_input_tokens_seen
        self.job.progress(state.global_step, state.max_steps, "steps", tokens)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        line = {"step": state.global_step}
        line |= {name: value for name, value in logs.items() if not name.startswith("train_") and name != "epoch"}
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        for name in ("loss", "grad_norm"):
            if not math.isfinite(line.get(name, 0.0)):
                where = f"{self.job.name or 'training'}, step {state.global_step} of {state.max_steps}"
                rate = self.job.config.learning_rate
                raise StageFailed(
                    f"{where}: {name} became {line[name]}; lower learning_rate ({rate:g}), or mend the rows"
                )


def arguments(job: Job, kind: Callable[..., Arguments], rows: int, rows_each: int = 1, **more: Any) -> Arguments:
    """TRL's arguments from a TrainingConfig, for `rows` items of `rows_each` rows; nothing is saved, sent or cut."""
    config, cuda = job.config, choose_device(job.machine).type == "cuda"
    micro = micro_batch(config.batch_size, job.machine, rows_each)
    steps = config.epochs * math.ceil(rows / config.batch_size)
    seed = job.seed % 2**32  # numpy takes no larger one
    return kind(
        output_dir=str(job.folder), save_strategy="no", report_to="none", disable_tqdm=True,
        per_device_train_batch_size=micro, gradient_accumulation_steps=config.batch_size // micro,
        num_train_epochs=config.epochs, learning_rate=config.learning_rate,
        lr_scheduler_type=_schedule(config.schedule),
        # Rounded down: a warm-up step has the rate 0 first, and a short training has no step to lose.
        warmup_steps=int(config.warmup_ratio * steps),
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, seed=seed, data_seed=seed,
        logging_steps=1, logging_nan_inf_filter=False, include_num_input_tokens_seen="non_padding",
        use_cpu=not cuda, bf16=cuda, gradient_checkpointing=cuda, dataloader_pin_memory=cuda,
        max_length=None, pad_to_multiple_of=LENGTH_STEP, **more,
    )  # fmt: skip


def _schedule(name: str) -> str:
    return "constant_with_warmup" if name == "constant" else name


def train(job: Job, trainer: Any, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train on `examples` in the fixed order and return the log's lines; sets `job.tokens`.

    Raises Interrupted when asked to stop, StageFailed for a loss that is no number or when the device's memory is full.
    """
    trainer.order = GlobalBatches([length(example) for example in examples], job.config.batch_size, job.seed)
    trainer.remove_callback(PrinterCallback)
    reporter = Reporter(job)
    trainer.add_callback(reporter)
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        rows = job.machine.micro_batch
        advice = f"lower machine.micro_batch ({rows}) to {max(1, rows // 2)}"
        raise StageFailed(f"{job.name}: the device's memory is full; {advice}") from error
    job.tokens += trainer.state.num_input_tokens_seen
    lines = reporter.lines
    job.summary |= {"steps": len(lines), "loss_first": lines[0]["loss"], "loss_last": lines[-1]["loss"]}
    return lines


def pair_collator(loaded: Loaded) -> PairCollator:
    """A pair's answers share their prompt on CPU; on CUDA activations are recomputed, which keeps no cache to share."""
    return PairCollator(loaded.renderer.pad_id, shared=loaded.device.type == "cpu")


def read_inputs(job: Job, *names: str) -> list[tuple[Path, str]]:
    """`(folder, input name)` of all folders of the named inputs, whether the plan gave one or a list."""
    found = []
    for name in names:
        value = job.inputs.get(name, [])
        found += [(folder, name) for folder in (value if isinstance(value, list) else [value])]
    return found
