"""The sandbox against programs that attack it, behind each wall that this machine has."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from posttrain.checks import sandbox
from posttrain.checks.sandbox import SETTING, UNSANDBOXED, Limits, Ran, run_python
from posttrain.checks.walls import WALLS, missing
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.rounds.process import environment

QUICK = Limits(seconds=3, memory=256 << 20, processes=16, output=20_000, scratch=1 << 20)


@pytest.fixture(params=list(WALLS))
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each wall in turn; skipped, with the reason, where this machine cannot build it."""
    wall: str = request.param
    if lacking := missing(WALLS[wall][0]):
        # The gate installs these Debian packages, so that there a missing one is a fault of the gate.
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"no sandbox by {wall} here: there is no {' and no '.join(lacking)}")
    if broken := sandbox.probe(wall):
        pytest.skip(f"no sandbox by {wall} here: {broken}")
    monkeypatch.setattr(sandbox, "_wall", lambda: wall)
    monkeypatch.delenv(SETTING, raising=False)
    return wall


def test_a_program_says_what_it_says(behind: str) -> None:
    ran = run_python("import sys; print(6 * 7); print('oh', file=sys.stderr); sys.exit(3)")
    assert (ran.ended, ran.code, ran.stdout, ran.stderr) == ("exit", 3, "42\n", "oh\n")


def test_a_long_program_arrives_whole_and_has_no_input(behind: str) -> None:
    ran = run_python(f"text = {'x' * 300_000!r}\nimport sys\nprint(len(text), repr(sys.stdin.read()))")
    assert ran.stdout == "300000 ''\n"


def test_a_program_reads_the_packages_it_is_given_and_no_others(behind: str) -> None:
    """Of this environment, wherever it lies; `psutil` has a library of its own machine code beside it."""
    code = (
        "import os, sys\nsys.path.append('/packages')\nimport psutil, typing_extensions\n"
        "print(psutil.__file__, sorted(os.listdir('/packages')))\nopen('/packages/psutil/x', 'w')"
    )
    ran = run_python(code, packages=["psutil", "typing_extensions"])
    assert ran.stdout == "/packages/psutil/__init__.py ['psutil', 'typing_extensions.py']\n"
    assert "Read-only file system" in ran.stderr or "Permission denied" in ran.stderr
    assert "ModuleNotFoundError" in run_python("import psutil").stderr
    with pytest.raises(UserError, match="the package nonesuch, which programs in the sandbox are given"):
        run_python("", packages=["nonesuch"])


def test_a_fork_bomb_stays_within_its_processes(behind: str) -> None:
    before = inside()
    ran = run_python("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", QUICK)
    assert ran.ended == "time"
    assert ran.seconds < QUICK.seconds + 10
    wait_until(lambda: inside() <= before)


@pytest.mark.parametrize(
    "bomb",
    [
        "held = []\nwhile True:\n    held.append(bytearray(b'x') * (16 << 20))",
        "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        held = bytearray(b'x') * (128 << 20)\n"
        "        time.sleep(9)\ntime.sleep(9)",
    ],
)
def test_a_memory_bomb_ends(behind: str, bomb: str) -> None:
    ran = run_python(bomb, Limits(seconds=20, memory=256 << 20))
    assert ran.ended == "memory" or "MemoryError" in ran.stderr


def test_endless_output_is_cut(behind: str) -> None:
    ran = run_python("while True: print('x' * 1000)", QUICK)
    assert ran.ended == "output"
    assert len(ran.stdout) == QUICK.output


def test_the_home_folder_and_this_checkout_are_not_there(behind: str) -> None:
    home, here = Path.home(), Path(__file__).resolve()
    code = (
        "import os\n"
        f"for path in ({str(home)!r}, {str(here)!r}, '/etc/passwd', '/proc/1/environ'):\n"
        "    print(os.path.exists(path))\n"
        "print(sorted(os.environ.keys() & {'HOME', 'USER', 'PYTHONPATH'}), os.environ['HOME'])"
    )
    assert run_python(code).stdout == "False\nFalse\nFalse\nFalse\n['HOME'] /tmp\n"


def test_nothing_but_the_scratch_folder_can_be_written(behind: str) -> None:
    code = (
        "import os\n"
        "for path in ('/x', '/usr/x', '/dev/x', '/etc/x', '/tmp/x', 'y'):\n"
        "    try:\n"
        "        open(path, 'w').write('x')\n"
        "        print(path)\n"
        "    except OSError:\n"
        "        pass\n"
        "print(os.getcwd(), os.getuid() == 0 and open('/usr/x', 'w'))"
    )
    ran = run_python(code)
    assert ran.stdout.splitlines()[:2] == ["/tmp/x", "y"]


def test_the_scratch_folder_has_an_end(behind: str) -> None:
    code = (
        "n = 0\n"
        "try:\n"
        "    while True:\n"
        "        open(f'/tmp/{n}', 'wb').write(bytes(100_000))\n"
        "        n += 1\n"
        "except OSError:\n"
        "    print(n)"
    )
    assert int(run_python(code, QUICK).stdout) <= 11


def test_nobody_can_be_reached(behind: str) -> None:
    connect = "socket.create_connection(('1.1.1.1', 53), 2)"
    code = f"import socket\ntry:\n    {connect}\nexcept OSError:\n    print('no')"
    assert run_python(code).stdout == "no\n"


def test_a_program_that_ignores_signals_is_killed_on_time(behind: str) -> None:
    code = (
        "import signal, time\n"
        "for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "while True:\n"
        "    time.sleep(1)"
    )
    ran = run_python(code, Limits(seconds=1))
    assert (ran.ended, ran.code) == ("time", None)
    assert 1 <= ran.seconds < 8


def test_children_die_with_the_program(behind: str) -> None:
    before = inside()
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nprint('bye')"
    assert run_python(code, QUICK).stdout == "bye\n"
    wait_until(lambda: inside() <= before)


def test_a_killed_parent_takes_the_sandbox_along(behind: str) -> None:
    before = inside()
    code = (
        "from posttrain.checks import sandbox\n"
        f"sandbox._wall = lambda: {behind!r}\n"
        "print('ready', flush=True)\n"
        "sandbox.run_python('import time; time.sleep(60)', sandbox.Limits(seconds=60))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        wait_until(lambda: not inside() <= before)
        begun = inside() - before
        parent.kill()
    wait_until(lambda: not begun & inside())


def inside() -> set[int]:
    """Living processes that began as a sandbox's interpreter, in this test run or another on the machine."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if (process.info["cmdline"] or [])[-2:] == ["-I", "-"] and process.info["status"] != psutil.STATUS_ZOMBIE
    }


def wait_until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.05)


def test_a_machine_without_walls_refuses_and_names_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    sandbox._wall.cache_clear()
    monkeypatch.setattr(sandbox, "missing", lambda program: [program])
    with pytest.raises(UserError, match=r"there is no bwrap.*no unshare.*untrusted_code: run_unsandboxed"):
        run_python("print(1)")
    monkeypatch.undo()
    sandbox._wall.cache_clear()


def test_a_wall_that_does_not_hold_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    open_wall = ("sh", lambda python, scratch, packages: ["env"])
    monkeypatch.setitem(WALLS, "open", open_wall)
    broken = sandbox.probe("open")
    for wall in ("network can be reached", "files of this machine can be seen", "other processes can be seen"):
        assert wall in broken


def test_in_these_words_code_runs_without_walls_but_with_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = environment(Machine(untrusted_code=UNSANDBOXED))[SETTING]
    assert environment(Machine())[SETTING] != UNSANDBOXED
    monkeypatch.setenv(SETTING, setting)
    monkeypatch.setattr(sandbox, "_wall", lambda: pytest.fail("it looked for a wall"))
    assert run_python(f"import os; print(os.path.exists({__file__!r}))").stdout == "True\n"
    slow: Ran = run_python("while True: pass", Limits(seconds=1))
    assert slow.ended == "time"
    assert "MemoryError" in run_python("bytearray(1 << 31)", QUICK).stderr
