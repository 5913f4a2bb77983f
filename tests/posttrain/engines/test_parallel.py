"""Processes side by side give the rows of one process, bit for bit, and end when their parent is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from posttrain.data.rows import Prompt
from posttrain.engines import Sampling, open_engine
from posttrain.engines.answers import answer_prompts
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.parallel import by_chunk
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job

PROMPTS = [Prompt(({"role": "user", "content": f"{i} cats on the mat? " * (i % 4 + 1)},), "general") for i in range(10)]

CHILDREN = """
import sys, time
from posttrain.engines import Request, Sampling, open_engine
from posttrain.machine import Machine
if __name__ == "__main__":
    engine = open_engine(sys.argv[1], Machine(device="cpu", threads=1, workers=2))
    request = Request("r", ({"role": "user", "content": "42"},))
    list(engine.generate([request], Sampling(1, 0.0, 1.0, 2)))
    print(*engine._workers._pool._processes, flush=True)
    time.sleep(600)
"""


def rows(folder: Path, model: Path, workers: int):
    folder.mkdir()
    machine = Machine(device="cpu", threads=1, workers=workers)
    job = Job(config=None, inputs={}, folder=folder, seed=5, name="sample", machine=machine)
    engine = open_engine(model, machine)
    try:
        return answer_prompts(job, engine, PROMPTS, Sampling(3, 1.0, 1.0, 16), 3, "m")
    finally:
        engine.close()


def test_two_processes_give_the_rows_of_one_bit_for_bit(tiny_model, tmp_path):
    assert rows(tmp_path / "two", tiny_model, 2) == rows(tmp_path / "one", tiny_model, 1)


def lengths(loaded: Loaded, chunk: list[str]) -> tuple[int, list[int]]:
    return os.getpid(), [len(loaded.renderer.tokenizer.encode(text)) for text in chunk]


CHUNKS = {"a": ["42"], "b": ["the cat", "mat"], "c": ["birds " * 9]}


def test_chunks_are_worked_on_in_processes_of_their_own_or_in_this_one(tiny_model):
    machine = Machine(device="cpu", threads=1)
    here = dict(by_chunk(machine, partial(load_model, tiny_model), lengths, CHUNKS))
    assert {process for process, _ in here.values()} == {os.getpid()}
    two = machine.model_copy(update={"workers": 2})
    there = dict(by_chunk(two, partial(load_model, tiny_model), lengths, CHUNKS))
    assert {name: found for name, (_, found) in there.items()} == {name: found for name, (_, found) in here.items()}
    processes = {process for process, _ in there.values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert list(by_chunk(two, partial(load_model, tiny_model / "none"), lengths, {})) == []


def test_what_a_worker_cannot_open_is_one_sentence(tmp_path):
    machine = Machine(device="cpu", threads=1, workers=2)
    with pytest.raises(UserError, match="does not exist"):
        list(by_chunk(machine, partial(load_model, tmp_path / "none"), lengths, CHUNKS))


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_engine(tmp_path / "none", Machine(workers=2))


def test_workers_end_when_their_parent_is_killed(tiny_model, tmp_path):
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tiny_model)], env=path, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(child) for child in children)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
