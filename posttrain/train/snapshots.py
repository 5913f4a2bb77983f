"""Weights of several steps of one run, kept in the artifact for an average over the run (Llama 3, 4.1.5)."""

import os
import shutil
from pathlib import Path
from typing import Any

from posttrain.stages import Job

SNAPSHOTS = "snapshots"
"""Folder of the artifact."""


def snapshot_steps(count: int, steps: int) -> set[int]:
    """`count` evenly spaced steps of `steps`, the last among them; all where there are fewer."""
    return {round(steps * (place + 1) / count) for place in range(count)} - {0}


def gathered(trainer: Any) -> dict[str, Any]:
    """All weights by name, each tied one once; empty on other processes than the main one where they were split."""
    tied = trainer.accelerator.unwrap_model(trainer.model).all_tied_weights_keys
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    return {name: value for name, value in state.items() if name not in tied}


def keep_snapshot(job: Job, trainer: Any, step: int) -> None:
    """Write the weights as they are at this step, in float32, whole or not at all. Every process takes part."""
    state = gathered(trainer)
    if not job.main:
        return
    folder = job.folder / SNAPSHOTS / f"step-{step:08d}"
    writing = folder.with_name(f".{folder.name}")
    shutil.rmtree(writing, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(writing, state_dict=state)
    os.rename(writing, folder)


def snapshots(folder: Path) -> list[Path]:
    """Those of an artifact, oldest first."""
    return sorted((folder / SNAPSHOTS).glob("step-*"))
