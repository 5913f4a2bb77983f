"""A run that needs people ends as waiting, and goes on after each round's import."""

import json
from pathlib import Path

from posttrain.data.tables import read_table

RECIPE = """\
name: small
seed: 3
models: {base: {path: base, parameters: 1000}}
machine: {threads: 1}
round:
  answers: {stage: example_answers}
  annotate: {by: human, share: 1, file: "labels-{round}"}
rounds: 2
"""


def fill_in(flow, told: str, number: int) -> None:
    """Prefer Rome in the file that the message names."""
    given = Path(told.split("rating and edited in ")[1].split(" (or ")[0]).with_suffix(".jsonl")
    (row,) = map(json.loads, given.read_text(encoding="utf-8").splitlines())
    row |= {"choice": "a" if row["answer_a"] == "Rome" else "b", "rating": "better"}
    (flow.folder / f"labels-{number}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


def test_a_run_waits_for_people_and_goes_on(flow) -> None:
    (flow.folder / "recipe.yaml").write_text(RECIPE)
    first = flow.run()
    assert first.returncode == 3, first.stderr
    assert "posttrain: round-1/annotate: 1 comparison waits for a person" in first.stderr
    assert "Traceback" not in first.stderr
    assert json.loads((flow.root / "report.json").read_text())["history"][-1]["ended"] == "waiting"

    fill_in(flow, first.stderr, 1)
    second = flow.run()
    assert second.returncode == 3, second.stderr
    assert "posttrain: round-2/annotate: 1 comparison waits" in second.stderr
    assert "labels-2.csv" in second.stderr
    (pair,) = read_table(flow.root / "round-1" / "annotate", "preferences")
    assert (pair.chosen["content"], pair.rejected["content"]) == ("Rome", "Milan, in round 1")
    assert (pair.rating, pair.made_by["by"]) == ("better", "human")

    (flow.folder / "labels-2.csv").write_text("id,choice,rating\n0123456789abcdef,a,better\n")
    wrong = flow.run()
    assert wrong.returncode == 2
    assert "labels-2.csv:2: the id '0123456789abcdef' is none of this round's comparisons" in wrong.stderr

    (flow.folder / "labels-2.csv").unlink()
    fill_in(flow, second.stderr, 2)
    last = flow.run()
    assert last.returncode == 0, last.stderr
    (pair,) = read_table(flow.root / "round-2" / "annotate", "preferences")
    assert pair.rejected["content"] == "Milan, in round 2"
