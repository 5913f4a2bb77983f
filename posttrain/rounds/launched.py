"""One process of a launched stage: `python -m posttrain.rounds.launched ORDER`, started by accelerate or torchrun.

The main process (rank 0) makes the artifact and tells the parent of it; what the others write goes to a folder that is
thrown away. Events go, one JSON a line, to the stdout that all of them inherit; the rest goes to the stage's log.
SIGTERM, SIGINT and SIGUSR1 ask the training to keep a checkpoint and stop. The end of stdin means that the parent is
gone, and ends the process.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from posttrain.artifacts import LOG
from posttrain.rounds.worker import Order, begin, ending, output_to, perform, read_orders, run_stage

SHORT = 4000
"""Bytes of an event that a pipe takes in one piece beside those of other processes (PIPE_BUF)."""


def main() -> None:
    order = Order(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    rank = int(os.environ.get("RANK", "0"))
    events, stop = begin()
    read_orders()

    def emit(event: dict[str, Any]) -> None:
        text = json.dumps(event, default=float)
        if rank == 0 or len(text) < SHORT:
            events.write(text + "\n")

    emit({"event": "process", "pid": os.getpid()})
    if rank == 0:
        emit(perform(order, emit, stop.is_set))
    else:
        event = _help(order, rank, stop.is_set)
        if event["event"] == "error":
            emit(event)
    _part()


def _help(order: Order, rank: int, stopping: Any) -> dict[str, Any]:
    """Do this process's part of the work, in a folder of its own."""
    Path(order.part).mkdir(parents=True, exist_ok=True)
    with output_to(Path(order.part) / LOG), tempfile.TemporaryDirectory() as folder:
        return ending(lambda: run_stage(order, Path(folder), lambda event: None, stopping, rank))


def _part() -> None:
    """Leave the group of processes in order, where there is one."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
