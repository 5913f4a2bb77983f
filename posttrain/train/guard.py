"""What the trainer found, against what the recipe asked for. Launchers fall back in silence: `accelerate launch --cpu`
runs one process, torchrun with CUDA in the way two trainings of one process each, FSDP on CPU is plain DDP."""

import os
from typing import Any

from posttrain.errors import UserError
from posttrain.machine import Launch

KINDS = {
    "NO": "none", "MULTI_CPU": "ddp", "MULTI_GPU": "ddp", "MULTI_XPU": "ddp", "MULTI_NPU": "ddp", "FSDP": "fsdp",
    "DEEPSPEED": "zero",
}  # fmt: skip
"""accelerate's name of a way to train → ours; the stage or version is appended."""


def check_launch(launch: Launch, accelerator: Any) -> None:
    """Raise UserError unless processes, sharding and backend are those of the launch. Called before a step is
    trained."""
    wanted, found = _told(launch.processes, launch.sharding, launch.sequence), _told(*_found(accelerator))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise UserError(
            f"launch {launch.name}: {started} processes were started, and each would train alone, as one of "
            f"{accelerator.num_processes}; give machine.device as the launcher needs it"
        )
    if wanted != found:
        raise UserError(
            f"launch {launch.name} is to train with {wanted}, but here is {found}; see `posttrain launch --print` for "
            "the command, and docs/training.md for what a launcher needs"
        )
    _check_backend(launch, accelerator)


def _told(processes: int, sharding: str, sequence: int) -> str:
    shared = f", {sequence} to a row" if sequence > 1 else ""
    return f"{processes} process{'es' if processes > 1 else ''} and {sharding} sharding{shared}"


def _found(accelerator: Any) -> tuple[int, str, int]:
    kind = KINDS.get(accelerator.distributed_type.value, accelerator.distributed_type.value.lower())
    state = accelerator.state
    if kind == "fsdp":
        kind += str(getattr(state.fsdp_plugin, "fsdp_version", 1))
    if kind == "zero":
        kind += str(state.deepspeed_plugin.zero_stage)
    sizes = accelerator.parallelism_config
    return accelerator.num_processes, kind, sizes.cp_size * sizes.sp_size if sizes else 1


def _check_backend(launch: Launch, accelerator: Any) -> None:
    if launch.processes == 1:
        return
    from torch import distributed

    backend, device = distributed.get_backend(), accelerator.device.type
    if (device == "cuda") != (backend == "nccl"):
        raise UserError(f"launch {launch.name}: backend {backend} for {device}; mend the launcher's config")
