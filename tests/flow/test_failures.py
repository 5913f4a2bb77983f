"""What goes wrong is told in one sentence with the right exit code, and nothing finished is lost."""

import ctypes
import os
import resource
from pathlib import Path

import pytest

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
"""From linux/prctl.h and linux/capability.h."""
ALL = [f"{number:04d}" for number in range(8)]


def limit_files_to_16_mib() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, 16 << 20))


@pytest.mark.parametrize(
    ("fault", "exit_code", "told"),
    [
        ("exception", 1, "round-1/numbers: RuntimeError: the numbers ran out"),
        ("user", 2, "round-1/numbers: numbers.txt line 3: expected a number, got 'x'; mend the line"),
        ("gate", 4, "the gate says stop"),
        ("kill", 1, "round-1/numbers: its process was ended by SIGKILL (when nobody sent that, the machine ran out"),
        ("full", 2, "round-1/numbers: cannot write: [Errno 27] File too large"),
    ],
)
def test_a_stage_that_dies(flow, fault: str, exit_code: int, told: str) -> None:
    arguments = ("run", "recipe.yaml", "--set", f"round.numbers.fault={fault}")
    result = flow.end(flow.start(*arguments, before=limit_files_to_16_mib if fault == "full" else None))
    assert result.returncode == exit_code, result.stderr
    assert told in result.stderr
    assert result.stderr.startswith("posttrain: ")
    if fault == "exception":
        log = Path(result.stderr.splitlines()[-1].split("log ")[1])
        assert "RuntimeError: the numbers ran out" in log.read_text()
    result = flow.run()
    assert result.returncode == 0, result.stderr
    assert flow.trail == ALL


def test_a_root_that_cannot_be_made(flow) -> None:
    (flow.folder / "occupied").write_text("a file")
    result = flow.run("--root", "occupied/run")
    assert result.returncode == 2
    assert "cannot write below occupied/run" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def obey_permissions() -> None:
    """Take from root, for good, the right to write where its own permissions forbid it."""
    if os.geteuid() == 0:
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0


def test_a_root_without_write_permission(flow) -> None:
    flow.root.parent.mkdir()
    flow.root.parent.chmod(0o555)
    result = flow.end(flow.start("run", "recipe.yaml", before=obey_permissions))
    assert result.returncode == 2, result.stderr
    assert "cannot write below runs/small: [Errno 13] Permission denied" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--only", "total"), "round-1/total needs round-1/numbers, which is not finished"),
        (("--until", "numbrs"), "--until 'numbrs': no such stage; there are numbers, total"),
        (("--round", "2"), "--round 2: the recipe has rounds 1 to 1"),
        (("--set", "round.numbers.chunk=2"), "unknown key; did you mean chunks?"),
    ],
)
def test_a_wrong_choice(flow, arguments: tuple[str, ...], told: str) -> None:
    result = flow.run(*arguments)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
