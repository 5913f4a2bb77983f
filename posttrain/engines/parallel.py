"""Several processes that each hold the model and answer side by side.

What is put to a model together is decided before, by chunk, so that the rows are those of one process. The processes
end with this one, also when it is killed.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from pathlib import Path

from posttrain.chat import Renderer
from posttrain.engines.loading import check_folder
from posttrain.engines.protocol import Completion, Engine, Request, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.machine import Machine

_own: Engine
"""A worker process's engine."""


class ParallelEngine(Engine):
    """`machine.workers` processes behind one `generate`; as many threads may call it."""

    def __init__(self, model: str | Path, machine: Machine):
        check_folder(model)
        self.renderer = Renderer.from_pretrained(model)
        self.lanes = machine.workers
        context = multiprocessing.get_context("spawn")
        places: Queue[int] = context.Queue()
        for place in range(machine.workers):
            places.put(place)
        self._pool = ProcessPoolExecutor(machine.workers, context, _begin, (model, machine, places))

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        try:
            yield from self._pool.submit(_answer, list(requests), sampling).result()
        except BrokenProcessPool:
            raise UserError(
                "one of machine.workers ended before its work was done, most often for want of memory; set fewer "
                "workers and give the same command again: finished chunks are kept"
            ) from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin(model: str | Path, machine: Machine, places: "Queue[int]") -> None:
    """Open the engine in a new process, on the device of its place."""
    global _own
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = places.get()
    threads = machine.threads or max(1, len(os.sched_getaffinity(0)) // machine.workers)
    _own = open_engine(
        model, machine.model_copy(update={"workers": 1, "threads": threads, "device": _device(machine, place)})
    )


def _device(machine: Machine, place: int) -> str:
    import torch

    count = torch.cuda.device_count() if machine.device in ("auto", "cuda") else 0
    return f"cuda:{place % count}" if count else machine.device


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _answer(requests: list[Request], sampling: Sampling) -> list[list[Completion]]:
    return list(_own.generate(requests, sampling))
