"""Averaging: the mean of every tensor, whatever the shards, and a sentence where models do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train import average
from posttrain.train.average_spec import AverageConfig

from .helpers import make_job


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
