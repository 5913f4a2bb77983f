"""LoRA: at the start the base model, frozen weights that stay, and a checkpoint that needs no peft."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.rounds.launch import check_launcher, shipped_launchers
from posttrain.train import dpo, sft
from posttrain.train.adapters import adapters, merged
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


def test_adapters_of_a_bfloat16_model_are_merged_in_float32(tmp_path: Path, tiny_model: Path) -> None:
    """What is not adapted keeps its bits, and what is adapted is rounded once."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(half)
    data = folder_with(tmp_path / "rows", "rows", make_rows(16))
    job = make_job(tmp_path / "lora", SftConfig(**CONFIG), {"data": [data], "init": half}, machine=MACHINE)
    sft.run(job)
    assert {tensor.dtype for tensor in load_file(job.folder / "model.safetensors").values()} == {torch.bfloat16}
    assert {name.split(".")[-2] for name in changed(job.folder, half)} == {"q_proj", "down_proj"}


def test_adapters_of_a_quantised_model_are_merged_into_the_weights_as_stored(tmp_path: Path, tiny_model: Path) -> None:
    """W + alpha / rank · B · A of the stored W, whatever quantising made of it."""
    stored = load_file(tiny_model / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)  # as far as rounding to 4 bits may take it
    model.is_quantized = True
    adapted = get_peft_model(model, adapters(LORA, model))
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    change = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # alpha 8, rank 4
    found = merged(adapted, tiny_model).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], (stored[name] + change).detach(), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(found[other], stored[other]) for other in stored.keys() - {name})


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_four_bits_without_a_device_is_one_sentence(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "rows", "rows", make_rows(4))
    config = SftConfig(**{**CONFIG, "lora": LoraConfig(four_bit=True)})
    with pytest.raises(UserError, match="four_bit needs a CUDA device"):
        sft.run(make_job(tmp_path / "a", config, {"data": [data], "init": tiny_model}, machine=MACHINE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_four_bits_train_adapters_and_merge_into_the_weights_as_stored(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    data = folder_with(tmp_path / "rows", "rows", make_rows(16))
    config = SftConfig(**{**CONFIG, "lora": LORA.model_copy(update={"four_bit": True})})
    job = make_job(tmp_path / "a", config, {"data": [data], "init": tiny_model}, machine=Machine(device="cuda"))
    sft.run(job)
    assert job.summary["loss_last"] < job.summary["loss_first"]
    assert {name.split(".")[-2] for name in changed(job.folder, tiny_model)} == {"q_proj", "down_proj"}


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
    with pytest.raises(ValueError, match="four_bit is for language models"):
        RewardConfig(lora=LoraConfig(four_bit=True))
    assert RewardConfig(lora=LORA).lora == LORA
