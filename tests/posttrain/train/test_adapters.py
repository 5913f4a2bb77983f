"""LoRA: at the start the base model, frozen weights that stay, and a checkpoint that needs no peft."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.rounds.launch import check_launcher, shipped_launchers
from posttrain.train import dpo, sft
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.settings import LoraConfig
from posttrain.train.sft_spec import SftConfig
from reward import train as reward_train
from reward.train_spec import RewardConfig

from .helpers import folder_with, make_job, make_pairs, make_rows

LORA = LoraConfig(rank=4, alpha=8.0, targets=("q_proj", "down_proj"))
CONFIG = {"learning_rate": 2e-2, "epochs": 4, "batch_size": 8, "warmup_ratio": 0.0, "lora": LORA}
MACHINE = Machine(device="cpu", threads=1)


def changed(folder: Path, before: Path) -> set[str]:
    one, other = load_file(folder / "model.safetensors"), load_file(before / "model.safetensors")
    return {name for name in one.keys() & other.keys() if not torch.equal(one[name], other[name])}


def test_sft_trains_adapters_only_and_merges_them(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "rows", "rows", make_rows(16))
    inputs = {"data": [data], "init": tiny_model}
    job = make_job(tmp_path / "lora", SftConfig(**CONFIG), inputs, machine=MACHINE)
    full = make_job(tmp_path / "full", SftConfig(**{**CONFIG, "lora": None}), inputs, machine=MACHINE)
    sft.run(job)
    sft.run(full)
    assert job.summary["loss_first"] == pytest.approx(full.summary["loss_first"], rel=1e-6)  # as yet the base model
    assert job.summary["loss_last"] < job.summary["loss_first"]
    names = changed(job.folder, tiny_model)
    adapted = ("self_attn.q_proj", "mlp.down_proj")
    assert names == {f"model.layers.{n}.{part}.weight" for n in (0, 1) for part in adapted}
    served, before = AutoModelForCausalLM.from_pretrained(job.folder), load_file(tiny_model / "model.safetensors")
    ranks = [torch.linalg.matrix_rank(served.get_parameter(n) - before[n], atol=1e-5) for n in sorted(names)]
    assert all(0 < rank <= 4 for rank in ranks)
    assert not (job.folder / "adapter_config.json").exists()


def test_dpo_and_the_reward_model_take_adapters_too(tmp_path: Path, tiny_model: Path) -> None:
    pairs = folder_with(tmp_path / "pairs", "pairs", make_pairs(16))
    preferences = folder_with(tmp_path / "preferences", "preferences", make_pairs(16))
    inputs = {"pairs": [pairs], "init": tiny_model, "reference": tiny_model}
    job = make_job(tmp_path / "dpo", DpoConfig(**CONFIG), inputs, machine=MACHINE)
    dpo.run(job)
    lines = [json.loads(line) for line in (job.folder / "training.jsonl").read_text().splitlines()]
    assert lines[0]["loss/preference"] == pytest.approx(0.6931, abs=1e-4)
    assert lines[-1]["loss/preference"] < 0.6
    inputs = {"preferences": [preferences], "init": tiny_model}
    job = make_job(tmp_path / "reward", RewardConfig(**CONFIG, heldout_share=0.0), inputs, machine=MACHINE)
    reward_train.run(job)
    assert job.summary["accuracy_last_step"] > 0.8
    model = AutoModelForSequenceClassification.from_pretrained(job.folder)
    assert model.num_labels == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_four_bits_without_a_device_is_one_sentence(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "rows", "rows", make_rows(4))
    config = SftConfig(**{**CONFIG, "lora": LoraConfig(four_bit=True)})
    with pytest.raises(UserError, match="four_bit needs a CUDA device"):
        sft.run(make_job(tmp_path / "a", config, {"data": [data], "init": tiny_model}, machine=MACHINE))


def test_what_cannot_be_merged_is_refused_in_the_recipe(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    zero3 = yaml.safe_load(shipped_launchers()["zero3"].read_text())
    zero3["deepspeed_config"]["deepspeed_config_file"] = str(shipped_launchers()["zero3"].with_suffix(".json"))
    own.write_text(yaml.safe_dump(zero3))
    for launch in ("zero3_offload", str(own)):
        with pytest.raises(UserError, match=f"lora cannot be merged under launch {launch}"):
            check_launcher(SftConfig(lora=LORA, launch=launch), MACHINE.model_copy(update={"devices": 2}), [])
    with pytest.raises(ValueError, match="snapshots are of whole weights"):
        SftConfig(lora=LORA, snapshots=3)
