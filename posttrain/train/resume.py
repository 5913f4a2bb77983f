"""Going on inside a training stage: a checkpoint is whole, or it does not count.

transformers resumes from whatever has the highest number and says nothing of a missing optimizer or a flipped byte. So
a checkpoint is written beside the others, synced, hashed into a record that is written last, and renamed; what does not
match its record is passed over for the one before.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from posttrain.artifacts import CHECKPOINTS, FileRecord, file_sha256, sync_folder, write_durably
from posttrain.errors import UserError
from posttrain.machine import Launch
from posttrain.stages import Job
from posttrain.train.reporter import LOG_FILE

RECORD = "record.json"
SAVING = ".saving"
"""Where a checkpoint is written before it has its name."""
KEPT = 2
"""Checkpoints that stay: the newest, and one in case that is torn."""
HASHED_AT_ONCE = 4
UNREAD = "training_args.bin"
"""What transformers puts into a checkpoint and never reads; it would hold access tokens in clear."""
SHARDED = ("zero2", "zero3", "fsdp2")
"""What splits the optimizer's state over the processes, so that only as many can read it again."""


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of itself."""

    step: int
    processes: int
    sharding: str
    files: dict[str, FileRecord]


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """Those that have a name, newest first, whole or not."""
    return sorted(folder.glob("step-*"), reverse=True)


def seal(written: Path, folder: Path, step: int, launch: Launch) -> Path:
    """Sync and hash the files of `written`, record them, and move it into `folder`; all but the last KEPT are removed.

    Raises OSError where the disk does not take it.
    """
    paths = sorted(path for path in written.rglob("*") if path.is_file() and path.name != RECORD)
    for path in paths:
        _sync_file(path)
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        hashes = list(pool.map(file_sha256, paths))
    files = {
        str(path.relative_to(written)): FileRecord(path.stat().st_size, sha256)
        for path, sha256 in zip(paths, hashes, strict=True)
    }
    record = Record(step, launch.processes, launch.sharding, files)
    write_durably(written / RECORD, json.dumps(asdict(record), indent=1))
    target = folder / name_of(step)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(written, target)
    sync_folder(folder)
    for old in checkpoints(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest_whole(folder: Path, launch: Launch, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as its record says; what is not is told of and removed.

    Raises UserError for one that other processes than these have to read.
    """
    shutil.rmtree(folder / SAVING, ignore_errors=True)
    for path in checkpoints(folder):
        why = fault(path)
        if not why:
            _check_processes(path, launch)
            return path
        tell(f"the checkpoint {path.name} is not used: {why}")
        shutil.rmtree(path)
    return None


def fault(path: Path) -> str:
    """What is wrong with a checkpoint, or an empty string."""
    try:
        record = read_record(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"its record cannot be read ({error})"
    for name, expected in record.files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected.bytes:
            return f"{name} is missing" if size is None else f"{name} has {size:,} bytes, not {expected.bytes:,}"
    for name, expected in record.files.items():
        if file_sha256(path / name) != expected.sha256:
            return f"{name} was changed after it was written"
    return ""


def read_record(path: Path) -> Record:
    raw: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
    raw["files"] = {name: FileRecord(**record) for name, record in raw["files"].items()}
    return Record(**raw)


def _check_processes(path: Path, launch: Launch) -> None:
    record = read_record(path)
    then, now = (record.processes, record.sharding), (launch.processes, launch.sharding)
    if then != now and (then[1] in SHARDED or now[1] in SHARDED):
        raise UserError(
            f"{path} was saved by {then[0]} processes under {then[1]}, and this is {now[0]} under {now[1]}; give the "
            f"same launch and devices again, or remove {path.parent} to train from the start"
        )


def folder_of(job: Job) -> Path:
    """Where the checkpoints of a stage under way stand, for all its processes."""
    return (job.common or job.folder) / CHECKPOINTS


class CheckpointMixin:
    """Mixed into a trainer: keeps all that it needs to go on to the bit, where `resume` finds it."""

    job: Job
    accelerator: Any
    state: Any
    save_seconds = 0.0
    """What the last checkpoint took."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(folder_of(self.job) / SAVING)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Every process takes part. Raises UserError where the disk does not take it."""
        began, step, folder = time.monotonic(), self.state.global_step, folder_of(self.job)
        writing = folder / SAVING / f"checkpoint-{step}"
        try:
            if self.job.main:
                writing.mkdir(parents=True, exist_ok=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()
            if self.job.main:
                (writing / UNREAD).unlink(missing_ok=True)
                shutil.copyfile(self.job.folder / LOG_FILE, writing / LOG_FILE)
                seal(writing, folder, step, self.job.launch)
                shutil.rmtree(folder / SAVING)
            self.accelerator.wait_for_everyone()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.job.name}: the checkpoint of step {step} cannot be written ({reason}); make room on the disk "
                "and give the same command again: it goes on from the checkpoint before"
            ) from error
        self.save_seconds = time.monotonic() - began
