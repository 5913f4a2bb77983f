"""Evaluation on a random tiny model: what is written, that it resumes to the same bytes, and the paired report."""

import json

import pytest

from eval.run import run
from eval.run_spec import SPEC, EvaluateConfig
from eval.table import Graded, changes, read_grades, results
from posttrain.data.rows import Check, Prompt, Response
from posttrain.data.tables import read_table, write_table
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Machine
from posttrain.stages import Job, Size

YES = Check("exact", {"answers": ["yes"]})


def prompt(text, capability="general", language="en", check=YES, **made_by):
    return Prompt(({"role": "user", "content": text},), capability, language, check=check, made_by=made_by)


@pytest.fixture
def evaluate(tmp_path, tiny_model):
    """Run the stage on prompts in a folder of its own, or again in one that is there."""
    machine = Machine(device="cpu", threads=1)

    def evaluate(prompts, name="out", **fields):
        source, folder = tmp_path / "prompts", tmp_path / name
        source.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        write_table(source, "prompts", prompts)
        config = EvaluateConfig(max_new_tokens=6, chunk=3)
        inputs = {"prompts": [source], "model": tiny_model, **fields.pop("inputs", {})}
        job = Job(config, inputs, folder, 3, name="evaluate-base", machine=machine, **fields)
        run(job)
        return job

    return evaluate


def table_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".parquet", ".json")}


def test_each_prompt_gets_one_greedy_graded_answer(evaluate):
    prompts = [prompt(f"Question {i}?", "ab"[i % 2], level=1 + i % 2) for i in range(8)]
    job = evaluate(prompts)
    responses, scores = read_table(job.folder, "responses"), read_table(job.folder, "scores")
    assert {response.prompt_id for response in responses} == {p.id for p in prompts}
    assert {score.response_id for score in scores} == {response.id for response in responses}
    assert {score.scorer for score in scores} == {"verifier"}
    assert {response.made_by["temperature"] for response in responses} == {0.0}
    report = json.loads((job.folder / "report.json").read_text())
    assert report == job.summary
    assert report["overall"]["n"] == 8
    assert report["overall"]["mean_tokens"] == sum(r.tokens for r in responses) / 8
    assert {name: part["n"] for name, part in report["capability"].items()} == {"a": 4, "b": 4}
    assert list(report["level"]) == ["1", "2"]
    assert "change" not in report


def test_a_right_answer_counts_and_the_change_is_against_the_evaluation_before(evaluate):
    """What the model answers is made the right answer of half the prompts; before, none was right."""
    texts = [f"Question {i}?" for i in range(8)]
    before = evaluate([prompt(text) for text in texts], "before")
    assert before.summary["overall"]["correct"] == 0
    said = {response.prompt_id: response.text for response in read_table(before.folder, "responses")}
    right = [Check("exact", {"answers": [said[prompt(text).id] if i % 2 else "yes"]}) for i, text in enumerate(texts)]
    after = evaluate(
        [prompt(text, check=check) for text, check in zip(texts, right, strict=True)],
        "after",
        inputs={"before": before.folder},
    )
    assert after.summary["overall"]["accuracy"] == 0.5
    assert after.summary["change"]["overall"]["change"] == 0.5
    assert after.summary["change"]["capability"]["general"]["n"] == 8
    assert sum(read_grades(after.folder).values()) == 4


def test_stopped_after_one_chunk_it_ends_with_the_same_bytes(evaluate):
    prompts = [prompt(f"Question {i}?") for i in range(8)]
    whole = evaluate(prompts, "whole")
    with pytest.raises(Interrupted, match="3 of 8 answers"):
        evaluate(prompts, "stopped", stopping=lambda: True)
    reports = []
    resumed = evaluate(prompts, "stopped", report=reports.append)
    assert [report["done"] for report in reports] == [3, 6, 8]
    assert table_bytes(resumed.folder) == table_bytes(whole.folder)


def test_prompts_that_cannot_be_evaluated_on(evaluate):
    with pytest.raises(UserError, match="holds no prompts"):
        evaluate([])
    with pytest.raises(UserError, match="1 prompts have no check"):
        evaluate([prompt("a"), prompt("b", check=None)])


def test_results_leave_an_unreadable_answer_out_of_the_share_and_count_it():
    answers = [
        Graded(prompt(f"{i}", language=language), Response(f"{i}", 0, "x", finish, tokens, None), value)
        for i, (language, finish, tokens, value) in enumerate(
            [("en", "stop", 2, 1.0), ("en", "length", 6, 0.0), ("de", "stop", 4, None)]
        )
    ]
    report = results(answers)
    overall = report["overall"]
    assert (overall["n"], overall["accuracy"], overall["unreadable"], overall["mean_tokens"]) == (2, 0.5, 1, 4.0)
    assert overall["finish"] == {"length": 1, "stop": 2}
    assert report["language"]["de"]["n"] == 0
    assert report["level"] == {}


def test_changes_pair_by_id_and_leave_single_prompts_out():
    a, b, c = prompt("a", "x"), prompt("b", "y"), prompt("c", "y")
    change = changes([a, b, c], {a.id: 0.0, b.id: 1.0}, {a.id: 1.0, b.id: 1.0, c.id: 0.0})
    assert (change["overall"]["n"], change["overall"]["change"]) == (2, 0.5)
    assert {name: part["change"] for name, part in change["capability"].items()} == {"x": 1.0, "y": 0.0}


def test_the_estimate_counts_prompts_and_answers_of_a_fifth_of_their_limit():
    config = EvaluateConfig(max_new_tokens=10)
    machine = Machine(teraflops=1e-6)
    prompts = [Size(rows=3, tokens=30), Size(rows=2, tokens=20)]
    size = SPEC.estimate(config, {"prompts": prompts, "model": Size(parameters=100)}, machine)
    assert (size.rows, size.tokens, size.memory) == (5, 10, 200)
    assert size.seconds == pytest.approx(2 * 100 * (50 + 8 * 5 * 2) / 1e6)
