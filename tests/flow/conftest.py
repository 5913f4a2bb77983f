"""Real runs of two small stages in real processes. The stages are a user's own modules."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STAGES = Path(__file__).parent / "stages"
PATIENCE = 120.0
"""Seconds until something that must happen counts as not happening; a busy machine takes ten to import torch."""
RECIPE = """\
name: small
seed: 3
models: {base: {path: base, parameters: 1000}}
machine: {threads: 1}
round:
  numbers: {stage: example_numbers, chunks: 8, trail: %s}
  total: {stage: example_total}
rounds: 1
"""


@dataclass
class Flow:
    """A folder with a recipe; commands run in it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "small"

    @property
    def trail(self) -> list[str]:
        """The chunks that were computed, in order."""
        return (self.folder / "trail").read_text().split()

    def environment(self) -> dict[str, str]:
        paths = [str(STAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def start(self, *arguments: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "posttrain", *arguments], cwd=self.folder, text=True, preexec_fn=before,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(),
        )  # fmt: skip
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.end(self.start("run", "recipe.yaml", *arguments))

    def until_chunks(self, number: int) -> None:
        """Wait until so many chunks stand in the journal of a stage under way."""
        wait_for(lambda: any(_lines(path) >= number for path in self.root.glob("store/*.part/numbers.journal.jsonl")))

    def worker_of(self, process: subprocess.Popen[str]) -> int:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: bool(children.read_text().split()))
        return int(children.read_text().split()[0])


def wait_for(happened: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    made = make_flow(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """A run that was never stopped."""
    made = make_flow(tmp_path_factory.mktemp("finished"))
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    return made


def make_flow(folder: Path) -> Flow:
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "settings.txt").write_text("the same in every run\n")
    (folder / "recipe.yaml").write_text(RECIPE % (folder / "trail"))
    return Flow(folder)
