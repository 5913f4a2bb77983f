"""What our trainers add to TRL's: a fixed order of batches, a loss over the whole global batch, progress and a log."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from posttrain.engines.lists import LENGTH_STEP
from posttrain.engines.loading import Loaded, choose_device
from posttrain.errors import StageFailed, UserError
from posttrain.stages import Job
from posttrain.train.batches import GlobalBatches, ListCollator, Listed, micro_batch

Arguments = TypeVar("Arguments")

LOG_FILE = "training.jsonl"
"""One line a step. It holds no times, so that the same training writes the same file."""


class GlobalBatchMixin:
    """Mixed into a TRL trainer whose `compute_loss` returns a sum over a micro-batch divided by `num_items_in_batch`.

    These are the items (tokens or pairs) of the global batch, so micro-batches of any size add up to the same loss.
    """

    loss_is_scaled_for_ga = True
    bounded_by = "micro_batch"
    """The setting of `machine:` that bounds a micro-batch."""
    order: GlobalBatches
    accelerator: Any

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

    def _send_telemetry(self) -> None:
        """TRL tells its makers of every training; a run on private data makes no call of its own."""


class ListBatchesMixin(GlobalBatchMixin):
    """Mixed into a TRL trainer of lists: it gets a global batch whole and cuts it into micro-batches that cost least.

    Which lists a step sees is then up to `batch_size` and the seed alone. `pairs` are what the loss is a mean over.
    """

    args: Any
    state: Any
    settings: Any
    """The stage's config."""
    bounded_by = "batch_tokens"

    def __init__(self, *args: Any, **options: Any):
        self._sums: dict[str, float] = {}
        super().__init__(*args, **options)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch; gradients are exchanged with the last one."""
        parts, losses = inputs["parts"], []
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            # DeepSpeed steps inside its backward pass and reads this; DDP exchanges gradients outside no_sync.
            self.accelerator.gradient_state._set_sync_gradients(last)
            with nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        return torch.stack(losses).sum()

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """The pairs of the global batch; every process also gets as many micro-batches as the one with most."""
        parts = batch_samples[0]["parts"]
        own = torch.tensor([sum(len(part["pairs"]) for part in parts), len(parts)], device=device)
        found = self.accelerator.gather(own).view(-1, 2)
        idle = {**parts[0], "pairs": parts[0]["pairs"][:0], "tokens": torch.zeros_like(parts[0]["tokens"])}
        parts += [idle] * (int(found[:, 1].max()) - len(parts))
        total: torch.Tensor = found[:, 0].sum()
        return total

    def note_sums(self, pairs: int, **sums: torch.Tensor) -> None:
        """Put means over the pairs of the global batch into the next line of the log; `sums` are a micro-batch's."""
        for name, value in {"pairs": torch.tensor(float(pairs)), **sums}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        pairs = self._sums.pop("pairs", 0.0)
        logs |= {name: value / pairs for name, value in self._sums.items() if pairs}
        self._sums.clear()
        super().log(logs, start_time)  # type: ignore[misc]

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        own = torch.stack([part["tokens"] for part in inputs["parts"]]).sum()
        self.state.num_input_tokens_seen += int(self.accelerator.gather(own).sum())

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


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


def arguments(job: Job, kind: Callable[..., Arguments], rows: int, micro: int | None = None, **more: Any) -> Arguments:
    """TRL's arguments from a TrainingConfig, for `rows` items; nothing is saved, sent or cut.

    `micro` items make a micro-batch, as many as `machine.micro_batch` allows where it is None.
    """
    config, cuda = job.config, choose_device(job.machine).type == "cuda"
    micro = micro or micro_batch(config.batch_size, job.machine)
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


def train(job: Job, trainer: Any, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Train on items of these lengths in the fixed order and return the log's lines; sets `job.tokens`.

    Raises Interrupted when asked to stop, StageFailed for a loss that is no number or when the device's memory is full.
    """
    trainer.order = GlobalBatches(lengths, job.config.batch_size, job.seed)
    trainer.remove_callback(PrinterCallback)
    reporter = Reporter(job)
    trainer.add_callback(reporter)
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        now = getattr(job.machine, trainer.bounded_by)
        advice = f"lower machine.{trainer.bounded_by} ({now}) to {max(1, now // 2)}"
        raise StageFailed(f"{job.name}: the device's memory is full; {advice}") from error
    job.tokens += trainer.state.num_input_tokens_seen
    lines = reporter.lines
    job.summary |= {"steps": len(lines), "loss_first": lines[0]["loss"], "loss_last": lines[-1]["loss"]}
    return lines


def list_trainer(
    job: Job, loaded: Loaded, lists: Sequence[Listed], kind: Callable[..., Any], settings: Callable[..., Any],
    **more: Any,
) -> Any:  # fmt: skip
    """A trainer `kind` with TRL's `settings` class, whose items are the lists; `more` goes to the settings."""
    processes = PartialState().num_processes
    if job.config.batch_size % processes:
        raise UserError(
            f"{job.name}: batch_size {job.config.batch_size} cannot be dealt to {processes} processes; "
            f"make it a multiple of {processes}"
        )
    trainer = kind(
        model=loaded.model,
        args=arguments(
            job, settings, len(lists), job.config.batch_size // processes, remove_unused_columns=False, **more
        ),
        train_dataset=Dataset.from_dict({"item": range(len(lists))}),
        data_collator=ListCollator(lists, loaded.renderer.pad_id, job.machine.batch_tokens, can_share(loaded)),
        processing_class=loaded.renderer.tokenizer,
    )
    trainer.settings = job.config
    return trainer


def can_share(loaded: Loaded) -> bool:
    """Whether training may keep a cache of the prompt; on CUDA activations are recomputed, which leaves none."""
    return loaded.device.type == "cpu"


def read_inputs(job: Job, *names: str) -> list[tuple[Path, str]]:
    """`(folder, input name)` of all folders of the named inputs, whether the plan gave one or a list."""
    found = []
    for name in names:
        value = job.inputs.get(name, [])
        found += [(folder, name) for folder in (value if isinstance(value, list) else [value])]
    return found
