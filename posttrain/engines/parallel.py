"""Work side by side in several processes, each with the model, and on GPUs a device, of its own.

What is put to a model together is decided before, by chunk, so that the rows are those of one process. The processes
end with this one, also when it is killed.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, TypeVar

from posttrain.chat import Renderer
from posttrain.engines.loading import check_folder
from posttrain.engines.protocol import Completion, Engine, Request, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.machine import Machine

Held = TypeVar("Held")
Chunk = TypeVar("Chunk")
Found = TypeVar("Found")

_held: Any
"""What a worker process works with."""


class Workers:
    """`count` processes that each hold what `hold(machine)` opened there; `hold` and all work must be picklable."""

    def __init__(self, machine: Machine, hold: Callable[[Machine], Any], count: int):
        context = multiprocessing.get_context("spawn")
        places: Queue[int] = context.Queue()
        for place in range(count):
            places.put(place)
        self._pool = ProcessPoolExecutor(count, context, _begin, (hold, machine, places, count))

    def submit(self, work: Callable[..., Found], *given: Any) -> "Future[Found]":
        """Begin `work(held, *given)` in one of the processes; its result is read by `result_of`."""
        return self._pool.submit(_perform, work, given)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def result_of(future: "Future[Found]") -> Found:
    """What the work gave. Raises UserError where its process is gone, and what the work itself raised."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise UserError(
            "one of machine.workers ended before its work was done, most often for want of memory; set fewer "
            "workers and give the same command again: finished chunks are kept"
        ) from None


def by_chunk(
    machine: Machine, hold: Callable[[Machine], Held], work: Callable[[Held, Chunk], Found], chunks: Mapping[str, Chunk]
) -> Iterator[tuple[str, Found]]:
    """`work(held, chunk)` of each chunk under its name, as it is finished.

    One worker works in this process and in order; what it holds is opened for the first chunk, so never for none.
    Several (`machine.workers`, at most one a chunk) take chunks as they are free, with `hold(machine)` in each, where
    the machine's device is that of the process.
    """
    if not chunks:
        return
    count = min(machine.workers, len(chunks))
    if count == 1:
        held = hold(machine)
        for name, chunk in chunks.items():
            yield name, work(held, chunk)
        return
    with closing(Workers(machine, hold, count)) as workers:
        names = {workers.submit(work, chunk): name for name, chunk in chunks.items()}
        for future in as_completed(names):
            yield names[future], result_of(future)


class ParallelEngine(Engine):
    """`machine.workers` processes behind one `generate`; as many threads may call it."""

    def __init__(self, model: str | Path, machine: Machine):
        check_folder(model)
        self.renderer = Renderer.from_pretrained(model)
        self.lanes = machine.workers
        self._workers = Workers(machine, partial(open_engine, model), machine.workers)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        yield from result_of(self._workers.submit(_answer, list(requests), sampling))

    def close(self) -> None:
        self._workers.close()


def _answer(engine: Engine, requests: list[Request], sampling: Sampling) -> list[list[Completion]]:
    return list(engine.generate(requests, sampling))


def _begin(hold: Callable[[Machine], Any], machine: Machine, places: "Queue[int]", count: int) -> None:
    """Open what a new process works with, on the device of its place."""
    global _held
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = places.get()
    threads = machine.threads or max(1, len(os.sched_getaffinity(0)) // count)
    own = {"workers": 1, "threads": threads, "device": _device(machine, place)}
    _held = _opened(hold, machine.model_copy(update=own))


def _perform(work: Callable[..., Found], given: tuple[Any, ...]) -> Found:
    if isinstance(_held, Exception):
        raise _held
    return work(_held, *given)


def _opened(hold: Callable[[Machine], Any], machine: Machine) -> Any:
    """What `hold` gives, or the user's mistake that it raises: an executor would only say that a process ended."""
    try:
        return hold(machine)
    except UserError as error:
        return error


def _device(machine: Machine, place: int) -> str:
    import torch

    count = torch.cuda.device_count() if machine.device in ("auto", "cuda") else 0
    return f"cuda:{place % count}" if count else machine.device


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
