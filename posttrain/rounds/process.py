"""The parent's end of the processes that run stages: starts them, sends orders, hears events, stops them, and says how
they died."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from posttrain import errors
from posttrain.errors import Interrupted, PosttrainError, StageFailed
from posttrain.machine import Machine
from posttrain.rounds.worker import Order

STOP_SECONDS = 60.0
"""How long a stage may say nothing on its way to a point where stopping is safe, before its worker is killed."""
LOG_LINES = 12
"""Last lines of a log that a failure shows."""
ENDINGS = ("done", "interrupted", "error")

Hear = Callable[[dict[str, Any]], None]


class Process:
    """The parent's end of processes that run stages. After an error or a death it is closed; the caller starts anew."""

    stop_seconds = STOP_SECONDS

    def __init__(self, log: Path):
        self.log = log

    def start(self, command: list[str], env: dict[str, str]) -> None:
        with open(self.log, "ab") as handle:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle, env=env,
                start_new_session=True, text=True, encoding="utf-8", preexec_fn=_ignore_warnings,
            )  # fmt: skip
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert self.process.stdout is not None
        threading.Thread(target=_listen, args=(self.process.stdout, self._events), daemon=True).start()

    def perform(self, order: Order, hear: Hear) -> dict[str, Any]:
        """Run one stage and return its `done` event. Raises what the stage raised; StageFailed when the worker dies."""
        raise NotImplementedError

    def outcome(self, order: Order, event: dict[str, Any] | None) -> dict[str, Any]:
        """The event that ended a stage, if that is `done`; else raises what it tells of."""
        if event is None:
            raise self._death(order)
        if event["event"] == "done":
            return event
        if event["event"] == "interrupted":
            raise Interrupted("the worker was asked to stop")
        raise _as_exception(order, event)

    def stop(self, hear: Hear) -> None:
        """Ask the running stage to stop where that is safe; kill the worker when it takes too long."""
        try:
            self.signal(signal.SIGTERM)
            self.until_ending(hear, self.stop_seconds)
        finally:
            self.close()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """End the process. What it has finished is on disk."""
        self.process.kill()
        self.process.wait()

    def until_ending(self, hear: Hear, seconds: float | None = None) -> dict[str, Any] | None:
        """Events up to the one that ends the stage; None when the worker died, or did not answer within `seconds`."""
        while True:
            try:
                event = self._events.get(timeout=seconds)
            except queue.Empty:
                return None
            if event is None or event["event"] in ENDINGS:
                return event
            hear(event)

    def _death(self, order: Order) -> StageFailed:
        code = self.process.wait()
        log = Path(order.part) / "stage.log"
        log = log if log.is_file() and log.stat().st_size else self.log
        if code < 0:
            how = f"its process was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (when nobody sent that, the machine ran out of memory)"
        else:
            how = f"its process ended with exit code {code}"
        return StageFailed(f"{order.id}: {how}; the same command goes on{last_lines(log)}\n  log {log}")


class Worker(Process):
    """The warm worker: one process for all stages that have none of their own."""

    def __init__(self, machine: Machine, log: Path):
        super().__init__(log)
        self.start([sys.executable, "-P", "-m", "posttrain.rounds.worker"], environment(machine))

    def perform(self, order: Order, hear: Hear) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asdict(order)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; the end of its events says so below
        return self.outcome(order, self.until_ending(hear))


def _as_exception(order: Order, event: dict[str, Any]) -> PosttrainError:
    kind, message = event["kind"], f"{order.id}: {event['message']}"
    if kind == "StageFailed":
        log = Path(order.part) / "stage.log"
        return StageFailed(f"{message}{last_lines(log)}\n  log {log}")
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, PosttrainError) and found is not errors.RecipeError:
        return found(message)
    return errors.UserError(message)


def last_lines(log: Path) -> str:
    """The end of a log, indented below a message; empty when there is none."""
    try:
        with open(log, encoding="utf-8", errors="replace") as handle:
            lines = [line.rstrip() for line in deque(handle, LOG_LINES)]
    except OSError:
        return ""
    return "".join(f"\n  | {line}" for line in lines)


def _ignore_warnings() -> None:
    """A cluster's warning goes to every process; launchers would die of it, and what trains sets its own handler."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _listen(stdout: IO[str], events: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by the death of a process, or printed by a launcher
        if isinstance(event, dict) and "event" in event:
            events.put(event)
    events.put(None)


def environment(machine: Machine) -> dict[str, str]:
    """Threads as the machine section says. A waiting one spins for some 20 microseconds, then sleeps: sleeping at once
    makes small models a third slower, and the library's own 300,000 spins slow a busy machine a hundredfold."""
    threads = str(machine.threads or os.cpu_count() or 1)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "GOMP_SPINCOUNT": "4000",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "POSTTRAIN_UNTRUSTED_CODE": machine.untrusted_code,
    }
