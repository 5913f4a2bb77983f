"""Kills, stops and second runs: nothing finished is lost, made twice, or other than in a run never stopped."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from posttrain.artifacts import read_manifest

SLOW = ("--set", "round.numbers.pause=0.1")
ALL = [f"{number:04d}" for number in range(8)]


def content(root: Path, name: str) -> bytes:
    return (root / "round-1" / name).read_bytes()


def assert_none_twice(trail: list[str]) -> None:
    """A kill between a chunk's record and its line in the trail may leave out a line, never write it twice."""
    assert len(set(trail)) == len(trail) >= 6


def same_as(finished, flow) -> None:
    for name in ("numbers/rows.parquet", "total/total.txt"):
        assert content(flow.root, name) == content(finished.root, name)
    for stage in ("numbers", "total"):
        manifests = [read_manifest(run.root / "round-1" / stage) for run in (finished, flow)]
        assert manifests[0].content == manifests[1].content
        assert manifests[0].key == manifests[1].key


def test_killed_worker_then_killed_parent_then_the_same_numbers(flow, finished) -> None:
    process = flow.start("run", "recipe.yaml", *SLOW)
    flow.until_chunks(2)
    os.kill(flow.worker_of(process), signal.SIGKILL)
    result = flow.end(process)
    assert result.returncode == 1
    assert "round-1/numbers: its process was ended by SIGKILL" in result.stderr
    assert "the same command goes on" in result.stderr
    assert "Traceback" not in result.stderr

    process = flow.start("run", "recipe.yaml", *SLOW)
    flow.until_chunks(5)
    worker = flow.worker_of(process)
    process.kill()
    flow.end(process)

    result = flow.run()
    assert result.returncode == 0, result.stderr
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text()
    assert_none_twice(flow.trail)
    same_as(finished, flow)


def test_killed_at_any_moment(flow, finished) -> None:
    draw = random.Random(11)
    for _ in range(3):
        process = flow.start("run", "recipe.yaml", *SLOW)
        time.sleep(draw.uniform(0.2, 6))
        process.kill()
        flow.end(process)
    result = flow.run()
    assert result.returncode == 0, result.stderr
    assert_none_twice(flow.trail)
    same_as(finished, flow)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_is_clean_says_how_far_it_came_and_goes_on(flow, finished, number) -> None:
    process = flow.start("run", "recipe.yaml", *SLOW)
    flow.until_chunks(2)
    process.send_signal(number)
    result = flow.end(process)
    assert result.returncode == 75
    said = re.search(r"stopped in round 1, numbers \((\d) of 8 kept\)\. Same command goes on\.", result.stderr)
    assert said, result.stderr
    assert int(said.group(1)) == len(flow.trail) < 8
    assert flow.run().returncode == 0
    assert flow.trail == ALL
    same_as(finished, flow)


def test_two_runs_at_once_share_the_work(flow, finished) -> None:
    both = [flow.start("run", "recipe.yaml", *SLOW) for _ in range(2)]
    results = [flow.end(process) for process in both]
    assert [result.returncode for result in results] == [0, 0], results
    assert flow.trail == ALL
    assert any("round-1/numbers is being made by another run; waiting for it" in result.stdout for result in results)
    same_as(finished, flow)


def test_a_manifest_written_before_the_kill_is_enough(flow, finished) -> None:
    assert flow.run().returncode == 0
    folder = (flow.root / "round-1" / "numbers").resolve()
    folder.rename(folder.with_name(folder.name + ".part"))
    result = flow.run()
    assert result.returncode == 0, result.stderr
    assert flow.trail == ALL
    same_as(finished, flow)


def test_what_was_begun_from_other_inputs_is_not_gone_on_with(flow, finished) -> None:
    assert flow.run("--until", "numbers").returncode == 0
    folder = (flow.root / "round-1" / "numbers").resolve()
    part = folder.with_name(folder.name + ".part")
    folder.rename(folder.with_name("away"))
    part.mkdir()
    (part / "numbers.journal.jsonl").write_text('{"chunk": "0000", "rows": []}\n')
    stamp = flow.root / "store" / ".work" / f"{folder.name}.begun"
    stamp.write_text('{"parents": {"rows": {"content": "of another time"}}}')
    assert flow.run().returncode == 0
    assert flow.trail == ALL * 2
    same_as(finished, flow)
