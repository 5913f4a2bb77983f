"""A training stage in processes of its own, started by accelerate: the command, and the parent's end of it.

A launcher is a config file for accelerate, one of recipes/accelerate by its name or a file of the user's. What it must
bring about (how many processes, which sharding) is read from it here and checked by the trainer in each process.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from posttrain.artifacts import write_durably
from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.machine import INLINE, Launch, Machine, Sharding
from posttrain.rounds.process import Hear, Process, environment
from posttrain.rounds.shipped import recipes_folder
from posttrain.rounds.worker import Order

if TYPE_CHECKING:
    from posttrain.rounds.plan import Node, Plan

FOLDER = "accelerate"
ON_CPU = "cpu_2proc"
"""The shipped launcher that sets the device."""
LAUNCHED_STOP_SECONDS = 900.0
"""How long launched processes may take to keep a checkpoint, before they are killed."""
END_SECONDS = 60.0
"""How long they may take to end after the result is there."""
PORT = "29500"
SIZE = "parallelism_config_"
"""What accelerate puts before the names in a config's `parallelism_config`."""
RING, ULYSSES = f"{SIZE}cp_size", f"{SIZE}sp_size"
"""Processes that share each row, by ring attention under FSDP 2 and by DeepSpeed's Ulysses."""
PIECES = {RING: 8, ULYSSES: 16}
"""At most so many pieces, since rows are padded to multiples of 16 tokens and ring attention cuts each piece in two."""


@dataclass(frozen=True)
class Launcher:
    """A config for accelerate, with absolute paths, and what it is to bring about."""

    values: dict[str, Any]
    launch: Launch
    machine: Machine
    flags: tuple[str, ...]

    def command(self, order: Path | str, rank: int = 0) -> list[str]:
        """What starts the processes of this machine, of number `rank`."""
        python = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_file(order))]
        many = self.machine.nodes > 1
        host, _, port = self.machine.address.partition(":")
        where = ["--machine_rank", str(rank), "--main_process_ip", host] if many else []
        where += ["--main_process_port", (port or PORT) if many else "0"]
        return [*python, *self.flags, *where, "-m", "posttrain.rounds.launched", str(order)]

    def environment(self) -> dict[str, str]:
        """What the processes find set beside the environment there is."""
        found = environment(self.machine)
        found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        if self.machine.device == "cpu":
            found["DS_ACCELERATOR"] = "cpu"
        return found


def launcher_of(config: Config) -> str:
    """The launcher a stage names; `inline` for stages that have none."""
    return str(getattr(config, "launch", INLINE))


def find_launcher(name: str, machine: Machine, folders: Sequence[Path] = ()) -> Launcher:
    """The launcher `name`; own files are looked for in `folders`. Raises UserError where there is none, or when it
    cannot do what it says."""
    file = _file(name, folders)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        sharding = _sharding(values, file)
        stated, sequence = int(values.get("num_processes", 0)), _sequence(values, sharding)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise UserError(f"launch {name}: {file} is no config for accelerate ({error})") from error
    if name == ON_CPU:
        machine = machine.model_copy(update={"device": "cpu"})
    processes = stated or machine.devices
    _check(name, Launch(name, processes, sharding, sequence), machine)
    if sharding == "fsdp2":  # as posttrain.train.split loads them
        values["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] = True
    if sequence > 1:
        values["parallelism_config"][f"{SIZE}dp_shard_size"] = processes // sequence
    threads = machine.threads or max(1, (os.cpu_count() or 1) * machine.nodes // processes)
    machine = machine.model_copy(update={"threads": threads})
    flags = ("--num_processes", str(processes), "--num_machines", str(machine.nodes))
    return Launcher(values, Launch(name, processes, sharding, sequence), machine, flags)


def check_launcher(config: Config, machine: Machine, folders: Sequence[Path]) -> None:
    """Raise UserError where a stage names a launcher that is not there, cannot do what it says, or cannot go with the
    stage's other settings."""
    name = launcher_of(config)
    launcher = None if name == INLINE else find_launcher(name, machine, folders)
    device = (launcher.machine if launcher else machine).device
    if device == "cpu" and (named := _needs_cuda(config)):
        raise UserError(f"{named} needs CUDA, and machine.device is cpu{f' (launch {name})' if launcher else ''}")
    if launcher is None:
        return
    launch = launcher.launch
    batch = int(getattr(config, "batch_size", launch.groups))
    if batch % launch.groups:
        raise UserError(f"batch_size {batch} cannot be dealt to the {launch.groups} processes of launch {name}")
    if getattr(config, "lora", None) and launch.splits_weights:
        raise UserError(
            f"lora cannot be merged under launch {name}, which splits the weights; use inline, ddp or zero2"
        )
    if launch.sequence > 1:
        _check_shared_rows(config, name)


def _needs_cuda(config: Config) -> str:
    """A setting that a CPU does not have, or an empty string."""
    lora = getattr(config, "lora", None)
    if getattr(lora, "four_bit", False):
        return "lora.four_bit"
    if getattr(config, "activations", "") == "offload":
        return "activations: offload"
    attention = getattr(config, "attention", "sdpa")
    return f"attention: {attention}" if attention != "sdpa" else ""


def _check_shared_rows(config: Config, name: str) -> None:
    if not getattr(config, "shares_rows", False):
        raise UserError(f"launch {name} lets processes share a row, which sft alone can; use zero3 or fsdp2")
    if getattr(config, "packing", 0):
        raise UserError(
            f"packing cannot go with launch {name}: where processes share a row there is no mask to keep packed rows "
            "apart; leave packing out"
        )
    if getattr(config, "attention", "sdpa") != "sdpa":
        raise UserError(f"launch {name} shares rows in attention sdpa only; leave attention out")


def shipped_launchers() -> dict[str, Path]:
    return {path.stem: path for path in sorted((recipes_folder() / FOLDER).glob("*.yaml"))}


def _file(name: str, folders: Sequence[Path]) -> Path:
    shipped = shipped_launchers()
    if name in shipped:
        return shipped[name]
    for folder in (*folders, Path()):
        if name.endswith((".yaml", ".yml")) and (folder / name).is_file():
            return (folder / name).absolute()
    raise UserError(
        f"launch {name!r}: there are {INLINE}, {', '.join(shipped)}, or the path of a file.yaml of your own"
    )


def _sharding(values: dict[str, Any], file: Path) -> Sharding:
    """What the config means; the path of DeepSpeed's own file in it becomes absolute."""
    kind = str(values.get("distributed_type", "NO"))
    if kind == "DEEPSPEED":
        own = values["deepspeed_config"]
        settings = file.parent / own["deepspeed_config_file"]
        stage = json.loads(settings.read_text(encoding="utf-8"))["zero_optimization"]["stage"]
        if stage not in (2, 3):
            raise ValueError(f"zero_optimization.stage is {stage}, and 2 and 3 are supported")
        own["deepspeed_config_file"] = str(settings.absolute())
        return "zero2" if stage == 2 else "zero3"
    if kind == "FSDP":
        if int(values["fsdp_config"]["fsdp_version"]) != 2:
            raise ValueError("fsdp_config.fsdp_version must be 2")
        return "fsdp2"
    if kind == "MULTI_GPU":
        return "ddp"
    if kind == "NO":
        return "none"
    raise ValueError(f"distributed_type is {kind}; supported are NO, MULTI_GPU, FSDP and DEEPSPEED")


def _sequence(values: dict[str, Any], sharding: Sharding) -> int:
    """Processes that share each row, by the config's `parallelism_config`."""
    sizes = {
        name: int(size) for name, size in (values.get("parallelism_config") or {}).items() if name.endswith("_size")
    }
    found = {name: size for name, size in sizes.items() if size > 1}
    if not found:
        return 1
    (name, size), *more = found.items()
    if more or name not in PIECES:
        raise ValueError(f"parallelism_config may name {RING} or {ULYSSES}, and has {', '.join(found)}")
    wanted = "FSDP" if name == RING else "DEEPSPEED"
    if (sharding == "fsdp2") != (name == RING) or not sharding.startswith(("fsdp", "zero")):
        raise ValueError(f"{name} needs distributed_type {wanted}, and it is {values.get('distributed_type')}")
    if PIECES[name] % size:
        raise ValueError(f"{name} is {size} and has to divide {PIECES[name]}")
    return size


def _check(name: str, launch: Launch, machine: Machine) -> None:
    processes, sharding = launch.processes, launch.sharding
    if sharding == "ddp" and processes == 1:
        raise UserError(f"launch {name} is for several processes and machine.devices is 1; use one_gpu or inline")
    if sharding == "fsdp2" and machine.device == "cpu":
        raise UserError(
            f"launch {name} needs CUDA and machine.device is cpu: accelerate would not split anything there"
        )
    if processes % machine.nodes:
        raise UserError(f"launch {name}: {processes} processes cannot be dealt to {machine.nodes} machines alike")
    if processes % launch.sequence:
        raise UserError(
            f"launch {name}: {launch.sequence} processes share a row, and machine.devices is {processes}; make it a "
            f"multiple of {launch.sequence}, or give a config of your own with another size"
        )
    if machine.nodes > 1 and not machine.address:
        raise UserError(
            f"launch {name}: machine.nodes is {machine.nodes}; give machine.address, host:port of the first"
        )


def launched_node(plan: "Plan", name: str) -> "Node":
    """The first stage of that name with a launcher. Raises UserError where there is none."""
    found = [node for node in plan.nodes if name in (node.id, node.name) and launcher_of(node.config) != INLINE]
    if not found:
        names = ", ".join(node.id for node in plan.nodes if launcher_of(node.config) != INLINE) or "none"
        raise UserError(f"{name!r} is no stage with a launcher; with one are {names}")
    return found[0]


def written(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """A command as a shell takes it, with what its environment has that this one has not."""
    own = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(own.items())]
    return " \\\n".join([*lines, shlex.join(command)])


class Launched(Process):
    """One stage in processes of its own; they end with it."""

    stop_seconds = LAUNCHED_STOP_SECONDS

    def __init__(self, launcher: Launcher, order: Order, order_file: Path, log: Path):
        super().__init__(log)
        write_order(order_file, order, launcher)
        self.pids: list[int] = []
        self.start(launcher.command(order_file), launcher.environment())

    def perform(self, order: Order, hear: Hear) -> dict[str, Any]:
        event = self.until_ending(self._listener(hear))
        if event is not None and event["event"] == "done":
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
        return self.outcome(order, event)

    def _listener(self, hear: Hear) -> Hear:
        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "process":
                self.pids.append(event["pid"])
            hear(event)

        return listen

    def stop(self, hear: Hear) -> None:
        super().stop(self._listener(hear))

    def signal(self, number: int) -> None:
        """To the processes that train, not to the launcher: torchrun kills them half a minute after it is asked to
        stop, and a checkpoint may take longer."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().close()


def write_order(path: Path, order: Order, launcher: Launcher) -> None:
    """The order and accelerate's config for all processes of a launch, on a disk that all of them see."""
    machine = launcher.machine.model_dump(mode="json")
    values = {**asdict(order), "machine": machine, "launch": asdict(launcher.launch)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(config_file(path), yaml.safe_dump(launcher.values))
    write_durably(path, json.dumps(values))


def config_file(order: Path | str) -> Path:
    """Accelerate's config for an order."""
    return Path(order).with_suffix(".accelerate.yaml")
