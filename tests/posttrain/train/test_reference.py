"""The reference's log-probabilities as an artifact: their values, what reruns them, and DPO without the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import feather

from posttrain.chat import Renderer
from posttrain.engines.loading import load_model
from posttrain.errors import Interrupted, RecipeError, UserError
from posttrain.rounds.plan import Plan, make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.stages import Job
from posttrain.train import dpo, reference
from posttrain.train.batches import lists_of, preference_mask
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.reference_spec import ReferenceConfig

from .helpers import folder_with, make_job, make_pairs

CONFIG = ReferenceConfig(chunk=6)
DPO = DpoConfig(learning_rate=1e-3, batch_size=8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "data", "pairs", make_pairs(20))


def job_of(folder: Path, model: Path, data: Path, config: ReferenceConfig = CONFIG, **more: Any) -> Job:
    return make_job(folder, config, {"pairs": [data], "init": model}, name="reference", **more)


def test_each_answer_has_the_sums_of_its_row_alone(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    job = job_of(tmp_path / "a", tiny_model, data)
    reference.run(job)
    assert job.summary["answers"] == job.rows["logprobs"] == feather.read_table(job.folder / reference.FILE).num_rows
    loaded = load_model(tiny_model, job.machine)
    lists = lists_of([example for _, example in reference.load(job, loaded.renderer)])
    found = reference.read(job, job.folder, lists)
    for item, own in zip(lists, found, strict=True):
        for answer, marks, one in zip(item.answers.answers, item.answers.marks or (), own, strict=True):
            ids = torch.tensor([item.answers.prompt + answer])
            with torch.no_grad():
                logprobs = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            of_answer = logprobs[len(item.answers.prompt) - 1 :]
            text = preference_mask(torch.tensor(marks), mask_format_tokens=True)
            assert one.counted(True) == pytest.approx(float(of_answer[text].sum()), abs=1e-4)
            assert one.counted(False) == pytest.approx(float(of_answer.sum()), abs=1e-4)


def test_dpo_with_the_artifact_ends_with_the_same_weights_and_is_given_no_reference(
    tmp_path: Path, tiny_model: Path, data: Path
) -> None:
    stored = job_of(tmp_path / "reference", tiny_model, data, ReferenceConfig())
    reference.run(stored)
    weights = []
    for name, given in (("own", {"reference": tiny_model}), ("stored", {"logprobs": stored.folder})):
        job = make_job(tmp_path / name, DPO, {"pairs": [data], "init": tiny_model, **given}, name="dpo")
        dpo.run(job)
        weights.append((job.folder / "model.safetensors").read_bytes())
        assert job.tokens == (2 if name == "own" else 1) * stored.tokens
    assert weights[0] == weights[1]


def test_an_answer_the_artifact_lacks_is_refused(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    stored = job_of(tmp_path / "reference", tiny_model, data)
    reference.run(stored)
    more = folder_with(tmp_path / "more", "pairs", make_pairs(22))
    job = make_job(tmp_path / "a", DPO, {"pairs": [more], "init": tiny_model, "logprobs": stored.folder}, name="dpo")
    with pytest.raises(UserError, match="no log-probability of 4 of 44 answers"):
        dpo.run(job)


def test_a_stopped_pass_goes_on_where_it_was(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    whole = job_of(tmp_path / "whole", tiny_model, data)
    lists = lists_of([example for _, example in reference.load(whole, Renderer.from_pretrained(tiny_model))])
    expected = reference.compute(whole, tiny_model, lists)
    events: list[dict[str, Any]] = []
    stopped = job_of(tmp_path / "part", tiny_model, data, report=events.append, stopping=lambda: len(events) == 2)
    with pytest.raises(Interrupted, match="stopped at 12 of 20 reference prompts"):
        reference.compute(stopped, tiny_model, lists)
    del events[:]
    resumed = job_of(tmp_path / "part", tiny_model, data, report=events.append)
    assert reference.compute(resumed, tiny_model, lists) == expected
    assert [event["done"] for event in events] == [18, 20]


def test_two_processes_compute_what_one_does(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    one, two = (job_of(tmp_path / name, tiny_model, data) for name in ("one", "two"))
    two.machine = two.machine.model_copy(update={"workers": 2})
    lists = lists_of([example for _, example in reference.load(one, Renderer.from_pretrained(tiny_model))])
    assert reference.compute(two, tiny_model, lists) == reference.compute(one, tiny_model, lists)


RECIPE = """
name: pairs
models: {base: tiny/base}
round:
  read: {path: pairs.jsonl, format: preferences}
  reference: {model: base}
  dpo: {init: base, reference: base, learning_rate: 1.0e-4}
"""
LINE = '{"prompt": "Say %s", "chosen": "yes", "rejected": "no"}\n'


def plan_of(folder: Path, *sets: str) -> Plan:
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return make_plan(load_recipe(folder / "recipe.yaml", list(sets)), folder / "recipe.yaml")


def test_another_rate_beta_or_loss_reruns_dpo_only_and_another_row_the_reference(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(LINE % "a", encoding="utf-8")
    before = {node.name: node for node in plan_of(tmp_path).nodes}
    assert before["dpo"].inputs["logprobs"] is not None and "reference" not in before["dpo"].inputs
    changes = ("learning_rate=5.0e-5", "beta=0.3", "loss=ipo", "epochs=3", "batch_size=4", "mask_format_tokens=false")
    for change in changes:
        after = {node.name: node.key for node in plan_of(tmp_path, f"round.dpo.{change}").nodes}
        assert {name for name in after if after[name] != before[name].key} == {"dpo"}, change
    data.write_text(LINE % "b", encoding="utf-8")
    after = {node.name: node.key for node in plan_of(tmp_path).nodes}
    assert {name for name in after if after[name] != before[name].key} == {"read", "reference", "dpo"}


def test_a_reference_stage_of_another_model_is_refused_by_the_plan(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(LINE % "a", encoding="utf-8")
    with pytest.raises(RecipeError, match="has another model or other pairs; give both the same"):
        plan_of(tmp_path, "round.dpo.reference=previous")
    without = plan_of(tmp_path, "round.reference=null")
    [own] = [node for node in without.nodes if node.name == "dpo"]
    assert "logprobs" not in own.inputs and own.inputs["reference"].source.endswith("base")
