"""The warm worker: one process runs stage after stage, so that torch and TRL are imported once a run.

`python -m posttrain.rounds.worker` reads one JSON order a line on stdin and writes JSON events, one a line, to the
stdout it was started with. What a stage itself prints goes to `stage.log` in the folder it writes. SIGTERM asks the
stage to stop where it next reports progress; the end of stdin means that the parent is gone, and ends the process.
"""

import errno
import faulthandler
import gc
import importlib
import importlib.metadata
import json
import logging
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from posttrain.artifacts import LOG, lock, write_manifest
from posttrain.endpoint import Endpoint
from posttrain.errors import Interrupted, PosttrainError
from posttrain.machine import Launch, Machine
from posttrain.rounds.hub import pinned_folder
from posttrain.stages import Job, StageSpec, load_spec

PACKAGES = ("posttrain", "torch", "transformers", "trl", "accelerate", "peft", "tokenizers", "numpy", "pyarrow")
"""Those whose versions a manifest records."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a full or forbidden disk answers: the user mends it, so it is told in a sentence."""
SIGNS_OF_A_FULL_DISK = ("os error 28", "No space left on device")
"""Rust libraries (safetensors, tokenizers) raise errors of their own with these words."""

MODEL_CODE = "posttrain.engines.loading"
"""What every stage that loads a model imports in the end."""
WORK = ".work"
"""Folder in the store for locks and for what each stage under way was begun with."""

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """One stage to run, as the parent sends it. Inputs are `{"artifact": path}`, `{"source": str}`,
    `{"served": endpoint}` or lists."""

    id: str
    """`round-1/sft`"""
    module: str
    kind: str
    key: str
    name: str
    round: int
    seed: int
    part: str
    """The folder to write into."""
    config: dict[str, Any]
    machine: dict[str, Any]
    inputs: dict[str, Any]
    parents: dict[str, Any]
    """What the manifest records of the inputs."""
    source_hash: str
    loads_model: bool
    """Whether an input is a model, so that torch is needed."""
    launch: dict[str, Any] = field(default_factory=dict)
    """Fields of `posttrain.machine.Launch`, where the stage has processes of its own."""


def begin() -> tuple[IO[str], threading.Event]:
    """Where events go, and what is set when the stage is asked to stop; stdout becomes stderr."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return events, stop


def main() -> None:
    events, stop = begin()
    orders = read_orders()

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event, default=float) + "\n")

    while True:
        order = Order(**json.loads(orders.get()))
        emit(perform(order, emit, stop.is_set))


def read_orders() -> "queue.Queue[str]":
    """Lines of the stdin the process was started with, read by a thread that ends the process when they end."""
    lines: queue.Queue[str] = queue.Queue()
    source = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)

    def read() -> None:
        for line in source:
            lines.put(line)
        # Whatever is finished stands in journals and manifests, so there is nothing to save.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def perform(order: Order, emit: Emit, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Run one stage and return the event that ends it: `done`, `interrupted` or `error`."""
    part = Path(order.part)
    try:
        part.mkdir(parents=True, exist_ok=True)
        # A worker whose parent was killed may still be ending: two must never write into one folder.
        with lock(part.parent / WORK / f"{part.name}.worker"), output_to(part / LOG):
            return ending(lambda: _run(order, part, emit, stopping))
    except OSError as error:
        return _failure(error)


def ending(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The event that `work` ends with, however it ends."""
    try:
        return work()
    except Interrupted:
        return {"event": "interrupted"}
    except PosttrainError as error:
        return {"event": "error", "kind": type(error).__name__, "message": str(error)}
    except BaseException as error:  # whatever a stage raises, the parent is told and the log has the rest
        traceback.print_exc()
        return _failure(error)


def _failure(error: BaseException) -> dict[str, Any]:
    full = any(sign in str(error) for sign in SIGNS_OF_A_FULL_DISK)
    if full or (isinstance(error, OSError) and error.errno in DISK_ERRORS):
        message = f"cannot write: {error}; make room or permission there, then give the same command again"
        return {"event": "error", "kind": "UserError", "message": message}
    last = traceback.format_exception_only(error)[-1].strip()
    return {"event": "error", "kind": "StageFailed", "message": last}


def _run(order: Order, part: Path, emit: Emit, stopping: Callable[[], bool]) -> dict[str, Any]:
    """Run the stage and write the manifest."""
    emit({"event": "start"})
    event = run_stage(order, part, emit, stopping)
    job, measured = event.pop("job"), event["measured"]
    finishing = time.perf_counter()
    _finish(order, load_spec(order.module), job, measured)
    measured["finish_seconds"] = time.perf_counter() - finishing
    return event


def run_stage(
    order: Order, folder: Path, emit: Emit, stopping: Callable[[], bool], rank: int = 0
) -> dict[str, Any]:  # fmt: skip
    """Run the stage as process `rank`, which writes into `folder`; the `done` event with the `job`."""
    began = time.perf_counter()
    spec = load_spec(order.module)
    run = importlib.import_module(order.module).run
    if order.loads_model:
        # Stages find their engine by name inside run(). Imported here, it counts as import, and torch is seeded below.
        importlib.import_module(MODEL_CODE)
        _take_device()
    job = Job(
        config=spec.Config.model_validate(order.config), inputs=_inputs(order.inputs), folder=folder, seed=order.seed,
        round=order.round, name=order.name, machine=Machine.model_validate(order.machine), report=emit,
        stopping=stopping, launch=replace(Launch(**order.launch), rank=rank), common=Path(order.part),
    )  # fmt: skip
    _seed_everything(order.seed)
    _reset_peak()
    imported, cpu = time.perf_counter(), time.process_time()
    emit({"event": "running"})
    run(job)
    measured = {
        "seconds": time.perf_counter() - imported,
        "import_seconds": imported - began,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": job.tokens,
        "memory": _peak_bytes(),
        **_device(),
    }
    return {"event": "done", "rows": job.rows, "summary": job.summary, "measured": measured, "job": job}


def _take_device() -> None:
    """Of several processes on one machine, each has the device of its own number."""
    if (cuda := _cuda()) and "LOCAL_RANK" in os.environ:
        cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _finish(order: Order, spec: StageSpec, job: Job, measured: dict[str, Any]) -> None:
    write_manifest(
        job.folder, stage=spec.module, kind=order.kind, key=order.key, config=order.config, parents=order.parents,
        source_hash=order.source_hash, rows=job.rows, summary=job.summary, measured=measured, versions=_versions(),
    )  # fmt: skip
    gc.collect()
    if cuda := _cuda():
        cuda.empty_cache()


def _inputs(given: dict[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        if "served" in value:
            return Endpoint.model_validate(value["served"])
        if "revision" in value:
            return pinned_folder(value["source"], value["revision"])
        return Path(value["artifact"]) if "artifact" in value else value["source"]

    return {name: one(value) for name, value in given.items()}


def _seed_everything(seed: int) -> None:
    """The global generators, so that a stage gives the same in a warm process and in a new one.

    torch and numpy are imported for the stages that need them only: a stage without a model that draws from their
    global generators imports them at the top of its module, not in a function.
    """
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to the end of `log`: prints, logging, warnings of C libraries and crash traces."""
    kept = os.dup(2)
    with open(log, "ab") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.dup2(kept, 2)
        os.close(kept)


def _reset_peak() -> None:
    """Let the kernel's peak of resident memory start again (man 5 proc); elsewhere it is the whole run's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def _peak_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device() -> dict[str, Any]:
    cuda = _cuda()
    if cuda is None or not cuda.max_memory_allocated():
        return {"device": "cpu"}
    return {"device": cuda.get_device_name(), "device_memory": cuda.max_memory_allocated()}


def _cuda() -> Any:
    """torch.cuda when a stage has imported torch and there is a device, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
