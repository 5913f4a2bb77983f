"""`posttrain report`: its numbers against those worked out by hand, an unfinished run, and what it refuses."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import binomtest

from eval.report.evaluations import evaluations, kept
from eval.report.examples import changed, clip, conversation
from eval.report.run import gather, report
from eval.report.suites import numbers
from posttrain import cli
from posttrain.errors import UserError
from posttrain.inspect.run import load
from tests.eval.report.example import PROMPTS, Written, base_right, begun, choose, finish, sft_right


def told(root: Path) -> str:
    """What the terminal says."""
    out = io.StringIO()
    report(root, root / "report.html", Console(file=out, width=200))
    return out.getvalue()


def test_suites_have_their_rates_and_marks_only_where_a_change_is_shown(finished: Path) -> None:
    """Calls rise from 10 to 15 of 20, with 7 gained and 2 lost, which is within chance; words from 0 to 13."""
    content = gather(finished)
    cells = {line.name: line.cells for line in content["lines"]}
    assert {name: [cell.accuracy for cell in own] for name, own in cells.items()} == {
        "overall": [0.25, 0.7],
        "calls": [0.5, 0.75],
        "words": [0.0, 0.65],
    }
    assert {name: own[1].mark for name, own in cells.items()} == {"overall": 1, "calls": 0, "words": 1}
    assert all(own[0].mark == 0 for own in cells.values())
    assert cells["calls"][1].change["p_holm"] == pytest.approx(binomtest(2, 9).pvalue)
    assert cells["words"][1].change["p_holm"] == pytest.approx(2 * binomtest(0, 13).pvalue)


def test_the_verdict_is_paired_from_the_first_evaluation_to_what_is_kept(finished: Path) -> None:
    """20 gained and 2 lost of 40; the interval is Bonett and Price's, by hand."""
    change = gather(finished)["verdict"].cells[1].change
    centre = 18 / 42
    half = 1.959964 * math.sqrt((24 / 42 - centre**2) / 42)
    assert (change["change"], change["n"]) == (0.45, 40)
    assert (change["low"], change["high"]) == (pytest.approx(centre - half), pytest.approx(centre + half))
    assert change["p"] == pytest.approx(binomtest(2, 22).pvalue)


def test_languages_are_compared_pair_by_pair(finished: Path) -> None:
    """German are the prompts 3, 7, …: none right before, then all but 3, 15, 27 and 39."""
    lines = {line.name: line.cells[1] for line in gather(finished)["languages"]}
    assert list(lines) == ["en", "de"]
    assert (lines["de"].n, lines["de"].accuracy, lines["de"].change["change"]) == (10, 0.6, 0.6)
    assert lines["de"].change["p_holm"] == pytest.approx(2 * binomtest(0, 6).pvalue, abs=0.04)


def test_examples_take_suites_in_turn_and_show_both_answers(finished: Path) -> None:
    before, after = evaluations(load(finished))
    found = changed(before, after, shown=6)
    assert (found.prompts, found.improved, found.worsened) == (40, 20, 2)
    assert [one.capability for one in found.best] == ["calls", "words"] * 3
    number = {prompt.id: prompt.made_by["number"] for prompt in PROMPTS}
    assert all(sft_right(number[one.id]) and not base_right(number[one.id]) for one in found.best)
    assert sorted(number[one.id] for one in found.worst) == [0, 20]
    worst = found.worst[0]
    assert (worst.before.text, worst.before.grade, worst.before.reason) == ("yes", 1.0, "right")
    assert (worst.after.grade, worst.after.reason, worst.wanted) == (0.0, "another text", 'exact {"answers": ["yes"]}')


def test_long_texts_and_conversations_are_shown_in_short() -> None:
    assert clip("a" * 10, 10) == "a" * 10
    assert clip("abcdefghijkl", 4) == "ab\n… 8 characters …\nkl"
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    messages = ({"role": "user", "content": "Go."}, {"role": "assistant", "content": "", "tool_calls": [call]})
    assert conversation(messages) == 'user: Go.\nassistant: [{"name": "f", "arguments": {}}]'
    assert conversation(messages[:1]) == "Go."


def test_the_way_of_the_data_has_every_drop(finished: Path) -> None:
    (first,) = gather(finished)["flow"]
    assert (first.number, first.prompts, first.rows, first.pairs) == (1, 6, 5, 0)
    steps = {step.name: step for step in first.steps}
    assert list(steps) == ["synthesize", "sample", "score", "select", "sft"]
    assert steps["synthesize"].left_out == (("calls: held-out split", 3), ("calls: surplus", 0), ("answers: wrong", 1))
    assert steps["synthesize"].reads == ("tiny/teacher",)
    assert steps["select"].wrote == (("rows", 6), ("pairs", 6))
    assert steps["select"].left_out == (("pairs: equal answers", 2),)
    assert steps["sft"].left_out == (("too long, dropped", 1), ("too long, cut", 0), ("tokens cut", 0))
    assert ("trained tokens", 30) in steps["sft"].facts


def test_costs_add_up(finished: Path) -> None:
    content = gather(finished)
    total = content["total"]
    assert (total.seconds, total.tokens, total.memory, total.money) == (18.0, 430, 3 << 20, 1.25)
    assert (total.expected_seconds, total.expected_tokens, total.speed) == (36.0, 860, pytest.approx(430 / 18))
    assert [(place, len(own), sum_of.tokens) for place, own, sum_of in content["costs"]] == [
        ("setup", 2, 140),
        ("round 1", 7, 290),
    ]


def test_rewards_count_every_sample_and_curves_every_whole_step(finished: Path) -> None:
    content = gather(finished)
    (scoring,) = content["scorings"]
    page = " ".join(scoring.charts)
    for legend in ("all candidates (18)", "chosen for SFT (6)", "pairs for DPO (6)"):
        assert legend in page
    assert scoring.best_names == ("mean", "combined", "any")
    (training,) = content["trainings"]
    assert training.id == "round-1/sft"
    assert training.facts == ("5 rows", "10 steps", "loss 1 at first", "0.1 at last")
    assert [title in " ".join(training.charts) for title in ("loss", "KL from the reference", "margin")] == [
        True,
        True,
        False,
    ]


def test_drift_and_lineage(finished: Path) -> None:
    content = gather(finished)
    (step,) = content["steps"]
    drift = {one.measure: one for one in step.drift}
    assert (drift["length"].before, drift["length"].after, drift["length"].significant) == (3.5, 3.5, False)
    assert content["ancestry"] == [(0, "round-1/gate"), (1, "round-1/sft"), (2, "/models/tiny/base")]
    assert content["versions"] == [("device", ("cpu",)), ("python", ("3.11",))]
    made = {made.id: made for made in content["lineage"]}
    assert made["round-1/sft"].config == {"learning_rate": 0.001}
    assert made["round-1/sft"].parents == ("model: /models/tiny/base f1",)


def test_the_terminal_tells_the_essentials(finished: Path) -> None:
    text = told(finished)
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("overall")).split() == ["overall", "40", "25.0", "70.0", "▲"]
    assert next(line for line in lines if line.startswith("calls")).split() == ["calls", "20", "50.0", "75.0"]
    assert "round 1 gate passed (+45.0" in text
    assert "round 1: 6 new prompts, 5 rows and 0 pairs trained; left out 3 held-out split (synthesize)" in text
    assert "of 40 prompts 20 better, 2 worse" in text
    assert lines[-1] == f"page {finished}/report.html"


def test_an_unfinished_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path / "half")
    run.stage("round-1/sample", ["responses"], inputs={"prompts": "round-1/synthesize"}, done=False)
    run.stage("round-1/evaluate-sft", ["evaluation"], inputs={"prompts": ["setup/heldout"], "model": "x"}, done=False)
    text = told(run.root)
    assert text.startswith("not finished: 3 of 5 stages are done, next is round-1/sample\n")
    page = (run.root / "report.html").read_text()
    assert "This run is not finished: 3 of 5 stages are done, the next one is round-1/sample" in page
    assert gather(run.root)["verdict"] is None
    assert gather(run.root)["ancestry"] == []


def test_a_run_without_evaluation_says_what_to_do(tmp_path: Path) -> None:
    run = Written(tmp_path / "plain")
    run.root.mkdir()
    run.stage("round-1/sft", ["checkpoint"], {}, {"init": "/models/tiny/base"}, {"rows": 5})
    assert "The recipe has no evaluation, so nothing is said of better or worse: add `evaluate` to it." in told(
        run.root
    )
    run.stage("round-1/evaluate-sft", ["evaluation"], inputs={"prompts": [], "model": "round-1/sft"}, done=False)
    assert "No evaluation has finished yet." in told(run.root)


@pytest.mark.parametrize("keeps", ["previous", "candidate"])
def test_what_is_kept_is_what_the_gate_kept(tmp_path: Path, keeps: str) -> None:
    run = begun(tmp_path / "run")
    choose(run)
    finish(run)
    manifest = json.loads((run.folder("round-1/gate") / "manifest.json").read_text())
    manifest["summary"] |= {"kept": keeps}
    (run.folder("round-1/gate") / "manifest.json").write_text(json.dumps(manifest))
    opened = load(run.root)
    found = kept(opened, evaluations(opened))
    assert found is not None
    assert found.id == {"previous": "setup/evaluate-base", "candidate": "round-1/evaluate-sft"}[keeps]


def test_numbers_of_any_suite_lie_flat() -> None:
    summary = {
        "kind": "safety", "heat": [{"length": 1}], "mean_of_four": 0.5,
        "hazards": {"theft": {"violation_rate": {"n": 4, "accuracy": 0.25}}}, "verdicts": {"better": 3},
    }  # fmt: skip
    assert list(numbers(summary)) == [
        ("mean of four", 0.5),
        ("hazards · theft · violation rate", 0.25),
        ("verdicts · better", 3),
    ]


def test_a_suite_with_a_heat_map_and_contamination_is_shown(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    folder = run.folder("setup/evaluate-base")
    manifest = json.loads((folder / "manifest.json").read_text())
    heat = [
        {"length": length, "depth": depth, "recall": 0.75, "n": 4} for length in (1024, 2048) for depth in (0.0, 0.5)
    ]
    manifest["summary"]["suites"] = {
        "calls": {"kind": "long_context", "heat": heat, "lengths": {"1024": {"accuracy": 0.5}}}
    }
    manifest["summary"]["contamination"] = {"calls": {"contaminated": 3, "clean": {"accuracy": 0.125}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report(run.root)
    page = (run.root / "report.html").read_text()
    assert "<th>1,024</th><th>2,048</th>" in page
    assert page.count("--v:75.0") == 4
    assert "<td>calls</td><td>3</td><td>50.0</td><td>12.5</td>" in page


def test_a_run_writes_the_page_when_it_is_older_than_what_it_tells_of(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    choose(run)
    finish(run)
    page, source = run.root / "report.html", run.root / "report.json"
    cli._write_page(run.root)
    assert "<h1>example</h1>" in page.read_text()
    page.write_text("kept")
    cli._write_page(run.root)
    assert page.read_text() == "kept"
    os.utime(source, ns=(page.stat().st_mtime_ns + 1, page.stat().st_mtime_ns + 1))
    cli._write_page(run.root)
    assert "<h1>example</h1>" in page.read_text()


def test_faults_are_told_in_a_sentence(tmp_path: Path, finished: Path) -> None:
    def command(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "posttrain", "report", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert (result.returncode, result.stdout) == (2, "")
        return result.stderr

    assert command("nowhere").startswith("posttrain: nowhere is not the root of a run: it has no plan.json")
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "page.html")
    assert command(str(finished), "--out", out).startswith(f"posttrain: cannot write {out}")
    with pytest.raises(UserError, match="is not the root of a run"):
        report(tmp_path)
