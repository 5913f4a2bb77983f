"""What a training says while it runs, when it keeps a checkpoint, and when it has to stop."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback

from posttrain.errors import StageFailed
from posttrain.stages import Job
from posttrain.train.snapshots import keep_snapshot, snapshot_steps

LOG_FILE = "training.jsonl"
"""One line a step. It holds no times, so that the same training writes the same file."""
SAVE_SECONDS = 300.0
"""Between two checkpoints where `save_steps` does not say."""
SAVE_SHARE = 0.02
"""Of the time, at most, goes into checkpoints where `save_steps` does not say."""
WINDOW = 10
"""Steps whose median loss tells whether a run diverges."""
PASS_FLOPS, UPDATE_FLOPS = 4, 2
"""A parameter and token: forward and the gradient of what it read, and where it is trained its own gradient (Kaplan et
al. 2020, 2001.08361, section 2.1)."""
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "RTX 4090": 165e12}
"""Dense bf16 FLOP/s by a part of the device's name (NVIDIA's data sheets), for the MFU."""


class Reporter(TrainerCallback):
    """Writes the log, tells of each step, asks for checkpoints, and refuses a loss that is no number or runs away.

    A run that is asked to stop finishes its step and keeps a checkpoint; `stopped` then says so.
    """

    def __init__(self, job: Job, trainer: Any, lines: list[dict[str, Any]]):
        self.job, self.trainer, self.lines = job, trainer, lines
        self.stopped = False
        self.tokens_told = trainer.state.num_input_tokens_seen
        self.began = self.saved_at = self.step_began = time.monotonic()
        self.save_cost = 0.0
        self.path = job.folder / LOG_FILE
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens_told, self.steps_before = state.num_input_tokens_seen, state.global_step
        self.began = self.saved_at = self.step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        stop, due = self._agreed(self.job.stopping(), self._save_is_due(state))
        if stop:
            self.stopped = control.should_training_stop = True
        control.should_save = control.should_save or stop or due

    def _save_is_due(self, state: Any) -> bool:
        if state.global_step == state.max_steps:
            return False  # the weights themselves follow
        if steps := self.job.config.save_steps:
            return bool(state.global_step % steps == 0)
        return time.monotonic() - self.saved_at > max(SAVE_SECONDS, self.save_cost / SAVE_SHARE)

    def _agreed(self, *flags: bool) -> list[bool]:
        """Each flag, where any process has it: a checkpoint is made by all processes at one step, or never."""
        if self.job.launch.processes == 1:
            return list(flags)
        accelerator = self.trainer.accelerator
        counts = accelerator.reduce(torch.tensor(flags, dtype=torch.int32, device=accelerator.device), "sum")
        return [bool(count) for count in counts.tolist()]

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        self.save_cost, self.saved_at = self.trainer.save_seconds, now

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        line = {"step": state.global_step}
        line |= {name: value for name, value in logs.items() if not name.startswith("train_") and name != "epoch"}
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        self._tell(state, line)
        self._refuse_no_number(state, line)
        self._refuse_divergence(state)
        if state.global_step in snapshot_steps(self.job.config.snapshots, state.max_steps):
            keep_snapshot(self.job, self.trainer, state.global_step)

    def _tell(self, state: Any, line: dict[str, Any]) -> None:
        """One event and one line of the stage's log."""
        tokens, self.tokens_told = state.num_input_tokens_seen - self.tokens_told, state.num_input_tokens_seen
        now, before = time.monotonic(), self.step_began
        self.step_began = now
        self.job.tell(state.global_step, state.max_steps, "steps", tokens, f"loss {line['loss']:.4f}")
        left = (state.max_steps - state.global_step) * (now - self.began) / (state.global_step - self.steps_before)
        parts = [
            f"step {state.global_step:,}/{state.max_steps:,}", f"loss {line['loss']:.4f}",
            f"lr {line['learning_rate']:.2e}", f"{tokens / max(now - before, 1e-9):,.0f} tok/s",
            f"{self.tokens_told:,} tokens", f"eta {left:,.0f} s", *self._of_device(tokens / max(now - before, 1e-9)),
        ]  # fmt: skip
        if self.job.main:
            self.job.log.info("  ".join(parts))

    def _of_device(self, tokens_per_second: float) -> Iterator[str]:
        """Peak memory, and what share of its peak FLOP/s the device gives, where that is known."""
        if not torch.cuda.is_available():
            yield f"peak {peak_bytes() / 2**30:.2f} GiB"
            return
        yield f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        name = torch.cuda.get_device_name()
        peaks = [peak for known, peak in PEAK_FLOPS.items() if known in name]
        if peaks:
            flops = self.trainer.token_flops * tokens_per_second
            yield f"mfu {flops / (peaks[0] * self.job.launch.processes):.1%}"

    def _refuse_no_number(self, state: Any, line: dict[str, Any]) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(line.get(name, 0.0)):
                rate, where = self.job.config.learning_rate, self._where(state)
                raise StageFailed(
                    f"{where}: {name} became {line[name]}; lower learning_rate ({rate:g}), or mend the rows"
                )

    def _refuse_divergence(self, state: Any) -> None:
        ratio, losses = self.job.config.max_loss_ratio, [line["loss"] for line in self.lines]
        if not ratio or len(losses) < 2 * WINDOW:
            return
        first, last = median(losses[:WINDOW]), median(losses[-WINDOW:])  # one bad batch is no divergence
        if first > 0 and last > ratio * first:
            raise StageFailed(
                f"{self._where(state)}: the loss diverges, its median over {WINDOW} steps is {last:.4g} and began at "
                f"{first:.4g}; lower learning_rate ({self.job.config.learning_rate:g}), "
                f"or raise max_loss_ratio ({ratio:g})"
            )

    def _where(self, state: Any) -> str:
        return f"{self.job.name or 'training'}, step {state.global_step} of {state.max_steps}"


def token_flops(model: Any) -> int:
    """What a token costs, forward and backward; less where most weights are frozen. Attention over other tokens and
    what is computed anew are not counted."""
    return int(PASS_FLOPS * model.num_parameters() + UPDATE_FLOPS * model.num_parameters(only_trainable=True))


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log; none where there is none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
