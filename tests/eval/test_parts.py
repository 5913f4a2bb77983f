"""Several suites: each is answered in an artifact of its own, so that another one leaves them as they are."""

import json
import subprocess
import sys

import pytest

from eval.run_spec import SPEC, EvaluateConfig
from posttrain.data.tables import read_table
from posttrain.errors import RecipeError
from posttrain.machine import Machine
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.stages import Amount, Size

RECIPE = """\
name: small
models: {{base: {model}}}
machine: {{device: cpu, threads: 1}}
setup:
{suites}
round:
  evaluate: {{after: [base], max_new_tokens: 4{judge}}}
"""
HELDOUT = "  heldout: {n: 4, capabilities: {tool_use: 1}}"
CALLS = "  calls: {stage: eval.suites.tool_use, n: 6, max_new_tokens: 4}"
SUMS = "  sums: {stage: eval.suites.math, n: 3, max_new_tokens: 4}"
WHICH = "  which: {stage: eval.suites.choices, n: 3, by: likelihood}"
TALK = "  talk: {stage: eval.suites.chat, path: talk.jsonl}"


@pytest.fixture
def recipe(tmp_path, tiny_model):
    """Write the recipe with some suites; returns its path."""

    def recipe(*suites, judge=""):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(model=tiny_model, suites="\n".join(suites), judge=judge))
        return path

    return recipe


def nodes(path):
    return {node.id: node for node in make_plan(load_recipe(path), path).nodes}


def test_one_suite_is_answered_by_the_evaluation_itself(recipe):
    assert list(nodes(recipe(HELDOUT))) == ["setup/heldout", "round-1/evaluate-base"]


def test_another_suite_leaves_the_keys_of_the_others(recipe):
    two, three = nodes(recipe(HELDOUT, CALLS)), nodes(recipe(HELDOUT, SUMS, CALLS))
    assert [name for name in two if "evaluate" in name] == [
        "round-1/evaluate-base.heldout", "round-1/evaluate-base.calls", "round-1/evaluate-base",
    ]  # fmt: skip
    for part in ("round-1/evaluate-base.heldout", "round-1/evaluate-base.calls"):
        assert two[part].key == three[part].key
        assert two[part].kinds == ("evaluation_part",)
    joined = three["round-1/evaluate-base"]
    assert joined.key != two["round-1/evaluate-base"].key
    assert [part.name for part in joined.inputs["parts"]] == [
        "evaluate-base.heldout", "evaluate-base.sums", "evaluate-base.calls",
    ]  # fmt: skip
    assert joined.kinds == ("evaluation",)


def test_only_the_suite_that_a_judge_reads_depends_on_it(recipe, tmp_path):
    (tmp_path / "talk.jsonl").write_text(json.dumps({"prompt": "Hi?", "reference": "Hello."}) + "\n")
    with pytest.raises(RecipeError, match=r"the suite talk needs a judge; name a model at evaluate\.judge"):
        nodes(recipe(HELDOUT, TALK))
    found = nodes(recipe(HELDOUT, TALK, judge=", judge: base"))
    assert [name for name, node in found.items() if "judge" in node.inputs] == ["round-1/evaluate-base.talk"]


def run_it(path):
    done = subprocess.run(
        [sys.executable, "-m", "posttrain", "run", path, "--root", "run"],
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split(" ▸ ")[1].split()[0] for line in done.stdout.splitlines() if " ▸ " in line]


def test_a_suite_added_to_a_finished_run_is_answered_alone(recipe, tmp_path):
    """The joined evaluation is what one stage over all suites would have written."""
    assert len(run_it(recipe(HELDOUT, CALLS))) == 5
    assert run_it(recipe(HELDOUT, CALLS, WHICH)) == ["which", "evaluate-base.which", "evaluate-base"]
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    folders = {stage["id"]: tmp_path / "run" / "store" / stage["folder"] for stage in plan["stages"]}
    joined = folders["round-1/evaluate-base"]
    parts = [folders[f"round-1/evaluate-base.{name}"] for name in ("heldout", "calls", "which")]
    for table in ("responses", "samples", "scores"):
        assert read_table(joined, table) == [row for part in parts for row in read_table(part, table)]
    report = json.loads((joined / "report.json").read_text())
    assert {name: part["n"] for name, part in report["capability"].items()} == {"calls": 6, "tool_use": 4, "which": 3}
    assert set(report["suites"]) == {"calls", "which"}
    run_report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [column["title"] for column in run_report["evaluations"]] == ["round 1 base"]


def test_the_estimate_takes_each_suites_own_answers():
    """5 held-out answers of 0.2 · 10 tokens; 3 answers of which the suite says that they have 60 tokens in all."""
    suite = Size(rows=3, tokens=30, made={"answers": Amount(3, 60)})
    sizes = {"prompts": [Size(rows=5, tokens=50), suite], "model": Size(parameters=100)}
    size = SPEC.estimate(EvaluateConfig(max_new_tokens=10), sizes, Machine(teraflops=1e-6))
    assert (size.rows, size.tokens) == (8, 70)
    assert size.seconds == pytest.approx(2 * 100 * (80 + 8 * 70) / 1e6)


@pytest.mark.parametrize(
    ("suite", "rows", "tokens"),
    [
        (CALLS, 6, 6),  # 0.2 · 4 is less than a token, and an answer has at least one
        ("  code: {stage: eval.suites.code, n: 4, samples: 5, temperature: 1.0, max_new_tokens: 100}", 20, 400),
        ("  talks: {stage: eval.suites.dialogs, n: 4, turns: 3, max_new_tokens: 50}", 4, 240),
        (WHICH, 3, 0),
    ],
)
def test_a_suite_says_what_its_answers_take(recipe, suite, rows, tokens):
    found = nodes(recipe(suite))
    made = next(node for node in found.values() if node.round == 0)
    assert made.size.of("answers") == Amount(rows, tokens)
    assert found["round-1/evaluate-base"].size.tokens == tokens
