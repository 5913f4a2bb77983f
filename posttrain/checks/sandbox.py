"""The only place where code that a model wrote is run.

`run_python(code)` runs it behind the walls of `posttrain.checks.walls` under Limits, and says how it ended. Before the
first program a probe tries every wall from the inside; where one does not hold, or there is none, nothing is run and a
UserError says why. A recipe that says `machine: {untrusted_code: run_unsandboxed}` runs it anyway, with the limits but
without the walls. docs/sandbox.md has what holds and what does not.
"""

import functools
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

import psutil

from posttrain.checks.walls import ENVIRONMENT, WALLS, installed, interpreter, missing, rlimits
from posttrain.errors import UserError

SETTING = "POSTTRAIN_UNTRUSTED_CODE"
"""Environment variable by which the recipe's `machine.untrusted_code` reaches every process of a run."""
UNSANDBOXED = "run_unsandboxed"
LOOK_SECONDS = 0.05
"""How often the clock and the memory are looked at."""
GRACE_SECONDS = 5.0
"""How long a killed sandbox may take to be gone."""

Ended = Literal["exit", "time", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    """What one run may use; whoever exceeds it is killed with all its processes."""

    seconds: float = 10.0
    """Wall-clock time, and CPU time of each process."""
    memory: int = 1 << 30
    """Bytes: address space of each process, and resident memory of all of them together."""
    processes: int = 32
    """Processes and threads at once."""
    output: int = 1 << 16
    """Bytes of stdout and stderr together."""
    scratch: int = 16 << 20
    """Bytes of the scratch folder."""


@dataclass(frozen=True)
class Ran:
    """How a program ended: `exit` by itself with `code` (negative: the signal that ended it), or over a limit."""

    ended: Ended
    code: int | None
    stdout: str
    stderr: str
    seconds: float


def run_python(code: str, limits: Limits | None = None, packages: Sequence[str] = ()) -> Ran:
    """Run a program of the standard library in the sandbox; its stdin is at its end.

    It may read the `packages` of this process's environment (`openpyxl`, in `walls.PACKAGES`) and no others. Raises
    UserError where one is not installed, and where this machine has no sandbox that holds, unless the recipe lets code
    run unsandboxed.
    """
    limits = limits or Limits()
    if unsandboxed():
        return _unsandboxed(code, limits)
    return _run(_command(_wall(), limits, installed(packages)), code, limits)


def unsandboxed() -> bool:
    """Whether the recipe said in words that untrusted code may run unsandboxed."""
    return os.environ.get(SETTING) == UNSANDBOXED


def fault() -> str:
    """Why there is no sandbox here, or an empty text where there is one."""
    try:
        _wall()
    except UserError as error:
        return str(error)
    return ""


@functools.cache
def _wall() -> str:
    """The name of the first wall that holds on this machine."""
    reasons = []
    for name, (program, _) in WALLS.items():
        if lacking := missing(program):
            reasons.append(f"{name}: there is no {' and no '.join(lacking)}")
        elif broken := probe(name):
            reasons.append(f"{name}: {broken}")
        else:
            return name
    raise UserError(
        f"model-written code cannot be run safely here ({'; '.join(reasons)}); install bubblewrap 0.8 or later, leave "
        f"out the prompts that need it, or write machine: {{untrusted_code: {UNSANDBOXED}}} into the recipe"
    )


def _command(wall: str, limits: Limits, packages: Sequence[str] = ()) -> list[str]:
    python = interpreter()
    if python is None:
        raise UserError("the sandbox needs a Python that every user may read; install the system's python3")
    shut_in = WALLS[wall][1](python, limits.scratch, packages)
    limited = rlimits(limits.memory, limits.processes, limits.seconds, limits.scratch)
    return [*shut_in, *limited, python.path, "-I", "-"]


PROBE = """
import json, os, socket
broken = []
def holds(wall, attempt, *errors):
    try:
        attempt()
    except errors:
        return
    except BaseException as error:
        broken.append(f"{wall} ({error!r})")
    else:
        broken.append(wall)
def write(path):
    with open(path, "wb") as file:
        file.write(b"x")
def fill():
    for number in range(2 + TOLD["scratch"] // 65536):
        with open(f"/tmp/{number}", "wb") as file:
            file.write(bytes(65536))
def processes():
    for _ in range(TOLD["processes"] + 1):
        if os.fork() == 0:
            import time
            time.sleep(5)
            os._exit(0)
holds("the network can be reached", lambda: socket.create_connection(("127.0.0.1", TOLD["port"]), 2), OSError)
for path in ("/x", "/usr/x", "/dev/x"):
    holds(f"{path} can be written", lambda: write(path), OSError)
holds("the files of this machine can be seen", lambda: os.stat(TOLD["secret"]), OSError)
holds("other processes can be seen", lambda: os.kill(TOLD["pid"], 0), ProcessLookupError)
holds("memory is not limited", lambda: bytearray(2 * TOLD["memory"]), MemoryError)
write("/tmp/x")
holds("the scratch folder is not limited", fill, OSError)
if os.fork() == 0:
    os._exit(0)
os.wait()
holds("processes are not limited", processes, OSError)
print(json.dumps(broken), flush=True)
os._exit(0)
"""


def probe(wall: str) -> str:
    """Try a wall from the inside; what does not hold as a text, empty when all do."""
    limits = Limits(seconds=10, memory=256 << 20, processes=8, scratch=1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile() as secret:
        os.chmod(secret.name, 0o644)
        told = {
            "port": server.getsockname()[1], "secret": secret.name, "pid": os.getpid(), "memory": limits.memory,
            "scratch": limits.scratch, "processes": limits.processes,
        }  # fmt: skip
        ran = _run(_command(wall, limits), f"TOLD = {told!r}\n{PROBE}", limits)
    try:
        return ", ".join(json.loads(ran.stdout))
    except ValueError:
        said = " ".join(ran.stderr.split())[-200:] or f"ended by {ran.ended} {ran.code}"
        return f"it does not start ({said})"


def _unsandboxed(code: str, limits: Limits) -> Ran:
    """Run with this process's rights, in a folder of its own; children that leave the session outlive it."""

    def limit() -> None:
        for kind, most in (
            (resource.RLIMIT_AS, limits.memory), (resource.RLIMIT_CPU, int(limits.seconds) + 1),
            (resource.RLIMIT_FSIZE, limits.scratch), (resource.RLIMIT_CORE, 0),
        ):  # fmt: skip
            resource.setrlimit(kind, (most, most))

    with tempfile.TemporaryDirectory() as folder:
        return _run([sys.executable, "-I", "-"], code, limits, folder, limit)


def _run(
    command: list[str], code: str, limits: Limits, folder: str = "/", before: Callable[[], None] | None = None
) -> Ran:
    """Start a command with `code` as its stdin, read what it says, and kill it where it exceeds a limit."""
    began = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
        cwd=folder, start_new_session=True, preexec_fn=before,
    ) as process:  # fmt: skip
        try:
            said, ended = _attend(process, code.encode(errors="replace"), limits, began + limits.seconds)
        finally:
            _kill(process)
    stdout, stderr = (text.decode(errors="replace") for text in said)
    code_of = process.returncode if ended == "exit" else None
    return Ran(ended, code_of, stdout, stderr, time.monotonic() - began)


def _attend(
    process: "subprocess.Popen[bytes]", code: bytes, limits: Limits, deadline: float
) -> tuple[tuple[bytes, bytes], Ended]:
    """Feed and read until the process ends or exceeds a limit: (stdout, stderr), each within the limit, and which."""
    assert process.stdin and process.stdout and process.stderr
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    ended: Ended = "exit"
    with selectors.DefaultSelector() as selector:
        for pipe, event in ((process.stdin, selectors.EVENT_WRITE), *((pipe, selectors.EVENT_READ) for pipe in said)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event)
        while process.poll() is None or _readable(selector):
            for key, _ in selector.select(LOOK_SECONDS):
                if key.fileobj is process.stdin:
                    code = _feed(selector, process.stdin, code)
                else:
                    _hear(selector, key.fileobj, said[key.fileobj])  # type: ignore[arg-type, index]
            if sum(map(len, said.values())) > limits.output:
                ended = "output"
            elif time.monotonic() > deadline:
                ended = "time"
            elif _resident(process.pid) > limits.memory:
                ended = "memory"
            if ended != "exit":
                break
    return (bytes(said[process.stdout])[: limits.output], bytes(said[process.stderr])[: limits.output]), ended


def _readable(selector: selectors.BaseSelector) -> bool:
    """Whether an ended process has left something in its pipes."""
    return any(key.events == selectors.EVENT_READ for key, _ in selector.select(0))


def _feed(selector: selectors.BaseSelector, pipe: IO[bytes], code: bytes) -> bytes:
    """Write what fits and return the rest; at the end of the code, or of the reader, the pipe is closed."""
    try:
        code = code[os.write(pipe.fileno(), code) :] if code else b""
    except BlockingIOError:
        return code
    except BrokenPipeError:
        code = b""
    if not code:
        selector.unregister(pipe)
        pipe.close()
    return code


def _hear(selector: selectors.BaseSelector, pipe: IO[bytes], said: bytearray) -> None:
    block = os.read(pipe.fileno(), 1 << 16)
    said += block
    if not block:
        selector.unregister(pipe)


def _resident(pid: int) -> int:
    """Bytes of memory that the process and its descendants hold and do not share."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.Error):
                held = process.memory_info()
                total += held.rss - getattr(held, "shared", 0)
    return total


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End everything: first the process inside, with which its namespace and all in it ends, so that the one outside
    can bury it; then the process group, which is all there is without walls."""
    with suppress(psutil.Error, subprocess.TimeoutExpired):
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.wait(LOOK_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
