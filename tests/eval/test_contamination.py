"""Planted training rows: found by suite, and what the report makes of them."""

import json

from eval.contamination import run
from eval.contamination_spec import SPEC, ContaminationConfig
from eval.run import _clean_part
from eval.table import Graded
from posttrain.data.rows import Prompt, Response, Row
from posttrain.data.tables import write_table
from posttrain.stages import Job

LONG = "A farmer has seventeen sheep and all but nine of them run away; how many are left?"


def asks(text, capability):
    return Prompt(({"role": "user", "content": text},), capability)


def test_prompts_that_stand_in_training_rows_are_counted_by_suite(tmp_path):
    prompts = [asks(LONG, "math"), asks("What is two and two?", "math"), asks("Name a colour of the sky.", "facts")]
    said = {"role": "assistant", "content": "Nine."}
    rows = [Row(({"role": "user", "content": f"Solve: {LONG.upper()}"}, said), "math")]
    for name, table, items in (("prompts", "prompts", prompts), ("mix", "rows", rows)):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, table, items)
    (tmp_path / "out").mkdir()
    inputs = {"prompts": [tmp_path / "prompts"], "trained": [tmp_path / "mix"]}
    job = Job(ContaminationConfig(), inputs, tmp_path / "out", 0)
    run(job)
    assert job.summary["suites"] == {
        "facts": {"prompts": 1, "contaminated": 0}, "math": {"prompts": 2, "contaminated": 1},
    }  # fmt: skip
    found = json.loads((tmp_path / "out" / "contamination.json").read_text())["prompts"]
    assert list(found) == [prompts[0].id]
    assert found[prompts[0].id]["row"] == rows[0].id
    answers = [
        Graded(prompt, Response(prompt.id, 0, "x", "stop", 1, None), value)
        for prompt, value in zip(prompts, (1.0, 0.0, 1.0), strict=True)
    ]
    clean = _clean_part(tmp_path / "out", answers)
    assert (clean["math"]["contaminated"], clean["math"]["clean"]["accuracy"]) == (1, 0.0)
    assert (clean["facts"]["contaminated"], clean["facts"]["clean"]["n"]) == (0, 1)
    assert SPEC.provides(ContaminationConfig()) == ("contamination",)
