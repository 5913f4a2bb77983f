"""`posttrain compare`: paired on the common prompts, whichever way the two are named, and what it refuses."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from eval.report.compare import compare, differences, gather
from eval.statistics import needed_n
from posttrain.data.tables import read_table, write_table
from posttrain.errors import UserError
from tests.eval.report.example import COUNT, PROMPTS, Written, base_right, begun, choose, finish


@pytest.fixture
def other(tmp_path: Path, finished: Path) -> Path:
    """A second run with another learning rate, to change as one likes."""
    run = begun(tmp_path / "other")
    choose(run)
    finish(run)
    plan = json.loads((run.root / "plan.json").read_text())
    next(stage for stage in plan["stages"] if stage["id"] == "round-1/sft")["config"]["learning_rate"] = 0.5
    (run.root / "plan.json").write_text(json.dumps(plan))
    return run.root


def test_two_checkpoints_of_a_run_by_their_folders(finished: Path, tmp_path: Path) -> None:
    """The gate's folder and the run's root mean what is kept; 20 prompts were gained and 2 lost."""
    for b in (
        finished,
        finished / "round-1" / "sft",
        finished / "round-1" / "gate",
        finished / "round-1" / "evaluate-sft",
    ):
        content = gather(finished / "setup" / "evaluate-base", b)
        assert content["sides"][1]["id"] == "round-1/evaluate-sft"
        lines = {line.name: line.cells[1] for line in content["lines"]}
        assert {name: cell.change["change"] for name, cell in lines.items()} == {
            "overall": 0.45,
            "calls": 0.25,
            "words": 0.65,
        }
        assert (content["prompts"], content["differing"], content["alone"]) == (40, 22, [0, 0])
        assert content["one_run"]
    out = io.StringIO()
    page = compare(finished / "setup" / "evaluate-base", finished, tmp_path / "c.html", Console(file=out, width=200))
    row = next(line for line in out.getvalue().splitlines() if line.startswith("words")).split()
    assert row[:5] == ["words", "20", "0.0", "65.0", "+65.0"]
    assert row[-2:] == ["<", "0.001", "▲"][-2:]
    assert "B is <strong" in page.read_text()


def test_two_runs_tell_what_was_asked_differently(finished: Path, other: Path, tmp_path: Path) -> None:
    content = gather(finished, other)
    assert content["settings"] == [("round-1/sft.learning_rate", "0.001", "0.5")]
    overall = content["lines"][0].cells[1]
    assert (overall.change["change"], overall.mark, content["needed"]) == (0.0, 0, None)
    page = compare(finished, other, tmp_path / "c.html").read_text()
    assert "No difference is shown: +0.0 points" in page
    assert list(differences({"a": 1, "b": 2}, {"b": 2, "c": None})) == [("a", "1", "–"), ("c", "–", "null")]


def test_where_nothing_is_shown_it_says_how_many_prompts_would(tmp_path: Path) -> None:
    """Two evaluations that differ on 2 of 40 prompts, one each way."""
    run = begun(tmp_path / "run")
    run.evaluate("round-1/evaluate-x", "round-1/x", lambda number: base_right(number) != (number in (0, 1)))
    content = gather(run.root / "setup" / "evaluate-base", run.root / "round-1" / "evaluate-x")
    assert content["needed"] == {"n": needed_n(0.02, 2 / COUNT), "points": 2.0}


def test_only_common_prompts_with_the_same_check_count(finished: Path, other: Path) -> None:
    """The other run asks 30 of the prompts, two of them with another check."""
    folder = (other / "setup" / "heldout").resolve()
    prompts = read_table(folder, "prompts")
    changed = json.dumps({"name": "exact", "args": {"answers": ["no"]}})
    keep = [prompt for prompt in prompts if prompt.made_by["number"] < 30]
    for prompt in keep[:2]:
        object.__setattr__(prompt, "check", type(prompt.check)("exact", json.loads(changed)["args"]))
    write_table(folder, "prompts", keep)
    accept(folder)
    content = gather(finished, other)
    assert (content["prompts"], content["alone"]) == (28, [12, 12])


def accept(folder: Path) -> None:
    """Write a changed file's size into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, record in manifest["files"].items():
        record["bytes"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_no_prompt_in_common(finished: Path, other: Path) -> None:
    folder = (other / "setup" / "heldout").resolve()
    write_table(folder, "prompts", [])
    accept(folder)
    with pytest.raises(
        UserError, match=r"no held-out prompt in common .*\(40 and 40 graded\); evaluate them on the same"
    ):
        gather(finished, other)


def test_what_cannot_be_compared_is_told_in_a_sentence(tmp_path: Path, finished: Path) -> None:
    run = Written(tmp_path / "plain")
    run.root.mkdir()
    run.stage("round-1/sft", ["checkpoint"], {}, {"init": "/models/tiny/base"}, {"rows": 5})
    alone = tmp_path / "alone"
    shutil.copytree((finished / "round-1" / "sft").resolve(), alone)
    faults = {
        tmp_path / "nowhere": "is neither a run nor a finished artifact",
        run.root: "has no finished evaluation to compare; add `evaluate` to its recipe",
        finished / "round-1" / "sample": "was not evaluated in its run; evaluated are tiny/base, round-1/sft",
        alone: "stands alone, without its run; name a run's root or a folder in it",
    }
    for path, said in faults.items():
        with pytest.raises(UserError) as error:
            gather(path, finished)
        assert said in str(error.value)
    command = [sys.executable, "-m", "posttrain", "compare", "plain", str(finished)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, os.listdir(tmp_path).count("compare.html")) == (2, "", 0)
    assert result.stderr.startswith("posttrain: plain has no finished evaluation")


def test_an_unfinished_run_is_compared_and_named(tmp_path: Path, finished: Path) -> None:
    run = begun(tmp_path / "half")
    run.stage("round-1/sft", ["checkpoint"], done=False)
    out = io.StringIO()
    compare(run.root, finished, tmp_path / "c.html", Console(file=out, width=200))
    assert "base  (not finished: 3 of 4 stages)" in out.getvalue()
    assert "The run of A is not finished: 3 of 4 stages are done" in (tmp_path / "c.html").read_text()
    assert len(PROMPTS) == COUNT
