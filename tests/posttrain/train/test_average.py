"""Averaging: the mean of every tensor, whatever the shards, and a sentence where models do not fit."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.stages import Job, Size, StageSpec
from posttrain.train import average, sft
from posttrain.train.average_spec import AverageConfig
from posttrain.train.sft_spec import SftConfig

from .helpers import folder_with, make_job, make_rows


def variant(folder: Path, model: Path, shift: float, **options: Any) -> Path:
    """The model with `shift` added to every weight."""
    changed = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(shift)
    changed.save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def averaged(folder: Path, of: list[Path], **config: Any) -> Job:
    job = make_job(folder, AverageConfig(of=tuple(path.name for path in of), **config), {"of": of}, name="average")
    average.run(job)
    return job


def test_the_weighted_mean_of_each_tensor(tmp_path: Path, tiny_model: Path) -> None:
    models = [variant(tmp_path / "a", tiny_model, 0.0), variant(tmp_path / "b", tiny_model, 0.4)]
    plain, weighted = averaged(tmp_path / "plain", models), averaged(tmp_path / "weighted", models, weights=(3.0, 1.0))
    first = load_file(models[0] / "model.safetensors")
    for job, shift in ((plain, 0.2), (weighted, 0.1)):
        mean = load_file(job.folder / "model.safetensors")
        assert mean.keys() == first.keys()
        for name, tensor in mean.items():
            torch.testing.assert_close(tensor, first[name] + shift, atol=1e-6, rtol=0)
    assert weighted.summary["weights"] == [0.75, 0.25]
    model = AutoModelForCausalLM.from_pretrained(plain.folder)
    assert AutoTokenizer.from_pretrained(plain.folder).chat_template
    assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()


def test_shards_of_the_first_are_kept_whatever_the_others_are(tmp_path: Path, tiny_model: Path) -> None:
    sharded = variant(tmp_path / "sharded", tiny_model, 0.0, max_shard_size="40KB")
    whole = variant(tmp_path / "whole", tiny_model, 0.4)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    job = averaged(tmp_path / "mean", [sharded, whole])
    assert sorted(p.name for p in job.folder.glob("*.safetensors")) == sorted(
        p.name for p in sharded.glob("*.safetensors")
    )
    ours = AutoModelForCausalLM.from_pretrained(job.folder).state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(tiny_model).state_dict().items():
        torch.testing.assert_close(ours[name], tensor + 0.2, atol=1e-6, rtol=0)


def test_models_that_do_not_fit_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    half = variant(tmp_path / "half", tiny_model, 0.0)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    with pytest.raises(UserError, match=r"is F32 \[.*\] in .* but BF16"):
        averaged(tmp_path / "a", [tiny_model, half])
    other = variant(tmp_path / "other", tiny_model, 0.0)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UserError, match=r"chat_template.jinja of .* differs"):
        averaged(tmp_path / "b", [tiny_model, other])
    torn = variant(tmp_path / "torn", tiny_model, 0.0)
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        averaged(tmp_path / "c", [tiny_model, torn])


def test_weights_must_match_the_checkpoints() -> None:
    with pytest.raises(ValueError, match="2 weights for 1 checkpoints"):
        AverageConfig(of=("sft",), weights=(1.0, 2.0))


def test_ema_shares_by_hand() -> None:
    """m = a; m = 0.6·a + 0.4·b; m = 0.36·a + 0.24·b + 0.4·c."""
    assert average.ema_shares(3, 0.6) == pytest.approx([0.36, 0.24, 0.4])
    assert average.ema_shares(1, 0.6) == [1.0]


def test_the_moving_average_of_a_run(tmp_path: Path, tiny_model: Path) -> None:
    """Snapshots of the steps 2, 4 and 6 of 6; the last is the checkpoint."""
    data = folder_with(tmp_path / "data", "rows", make_rows(19))
    config = SftConfig(learning_rate=2e-3, epochs=2, batch_size=8, snapshots=3)
    run = make_job(tmp_path / "sft", config, {"data": [data], "init": tiny_model}, name="sft")
    sft.run(run)
    kept = sorted((run.folder / "snapshots").iterdir())
    assert [path.name for path in kept] == ["step-00000002", "step-00000004", "step-00000006"]
    a, b, c = (load_file(path / "model.safetensors") for path in kept)
    last = load_file(run.folder / "model.safetensors")
    job = averaged(tmp_path / "ema", [run.folder], method="ema", decay=0.6)
    for name, tensor in load_file(job.folder / "model.safetensors").items():
        assert torch.equal(c[name], last[name])
        torch.testing.assert_close(tensor, 0.36 * a[name] + 0.24 * b[name] + 0.4 * c[name], atol=1e-6, rtol=1e-5)
    with pytest.raises(UserError, match="holds no snapshots"):
        averaged(tmp_path / "none", [tiny_model], method="ema")


def test_the_greedy_soup_keeps_what_does_not_make_it_worse(tmp_path: Path, tiny_model: Path, monkeypatch: Any) -> None:
    """A scorer that wants a mean shift of 0.32: 0.3 is best alone, 0.36 brings it nearer, 0.2 and 9.0 spoil it."""
    models = [variant(tmp_path / str(shift), tiny_model, shift) for shift in (9.0, 0.36, 0.3, 0.2)]
    first = load_file(tiny_model / "model.safetensors")["model.norm.weight"]

    def run(job: Job) -> None:
        shift = (load_file(job.inputs["model"] / "model.safetensors")["model.norm.weight"] - first).mean().item()
        job.summary["overall"] = {"accuracy": round(1 - abs(shift - 0.32), 3)}

    scorer = ModuleType("soup_scorer")
    scorer.run = run  # type: ignore[attr-defined]
    spec = ModuleType("soup_scorer_spec")
    spec.SPEC = StageSpec(  # type: ignore[attr-defined]
        "soup_scorer", 1, Config, lambda c: (), lambda c, s: {}, lambda c, s, m: Size()
    )
    monkeypatch.setitem(sys.modules, "soup_scorer", scorer)
    monkeypatch.setitem(sys.modules, "soup_scorer_spec", spec)
    config = AverageConfig(of=("a", "b", "c", "d"), method="greedy", scorer="soup_scorer")
    job = make_job(tmp_path / "soup", config, {"of": models, "prompts": []}, name="average")
    average.run(job)
    assert job.summary["alone"] == pytest.approx([-7.68, 0.96, 0.98, 0.88])
    assert job.summary["soup"] == [2, 1]
    assert job.summary["accuracy"] == pytest.approx(0.99)
    assert all(path.is_file() for path in job.folder.iterdir())
    mean = load_file(job.folder / "model.safetensors")["model.norm.weight"]
    torch.testing.assert_close(mean, first + 0.33, atol=1e-5, rtol=0)


def test_what_a_method_needs_is_said_in_the_recipe() -> None:
    with pytest.raises(ValueError, match="ema is over the snapshots of one training"):
        AverageConfig(of=("sft", "dpo"), method="ema")
    with pytest.raises(ValueError, match="weights go with the method mean"):
        AverageConfig(of=("sft",), method="ema", weights=(1.0,))
    with pytest.raises(ValueError, match="greedy measures answers"):
        AverageConfig(of=("a", "b"), method="greedy", kind="reward_model")
