"""A small quick start, killed with SIGKILL at moments drawn over its whole length: the end is the same, bit for bit."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from posttrain.artifacts import PART
from posttrain.data.tables import read_table

SMALL = {
    "setup.heldout.n": 40, "round.sample.k": 4, "round.sample.max_new_tokens": 40, "round.annotate.share": 0.5,
    "prompts.tool_use.rows": 30, "prompts.multilingual.rows": 30, "prompts.long_context.rows": 8,
    "prompts.long_context.lengths": [256], "prompts.instructions.rows": 30,
}  # fmt: skip
KILLS = 5


def start(root: Path) -> subprocess.Popen[bytes]:
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "posttrain", "run", "quickstart", "--root", str(root), *sets]
    with open(root.parent / f"{root.name}.log", "ab") as log:
        return subprocess.Popen(command, cwd=root.parent, stdout=log, stderr=log, start_new_session=True)


def finish(root: Path) -> float:
    """Run to the end; seconds it took."""
    began = time.monotonic()
    assert start(root).wait() == 0, (root.parent / f"{root.name}.log").read_text("utf-8")[-2000:]
    return time.monotonic() - began


def made(root: Path) -> dict[str, float]:
    """Finished artifacts, and when each was finished."""
    found = [path for path in (root / "store").glob("*/manifest.json") if path.parent.suffix != PART]
    return {path.parent.name: path.stat().st_mtime for path in found}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_killed_anywhere_ends_as_if_never_stopped(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = finish(whole)
    draw, seen = random.Random(5), {}
    for _ in range(KILLS):
        process = start(killed)
        time.sleep(draw.uniform(0.1, 0.4) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        finished = made(killed)
        assert seen.items() <= finished.items(), "a finished artifact was made again"
        seen = finished
    finish(killed)
    assert seen.items() <= made(killed).items(), "a finished artifact was made again"
    for round_name in ("round-1", "round-2"):
        for stage in ("reward", "sft", "dpo"):
            weights = Path(round_name) / stage / "model.safetensors"
            assert digest(whole / weights) == digest(killed / weights), weights
        for table in ("prompts", "responses", "scores"):
            stage = {"prompts": "synthesize", "responses": "sample", "scores": "score"}[table]
            assert read_table(whole / round_name / stage, table) == read_table(killed / round_name / stage, table)
    ends = [read_table(root / "final" / "evaluation", "responses") for root in (whole, killed)]
    assert len(ends[0]) == SMALL["setup.heldout.n"] and ends[0] == ends[1]
