"""Every way a model folder can be wrong ends in one sentence that names the folder."""

import shutil

import pytest
import torch
from transformers import AutoTokenizer

from posttrain.engines import open_engine
from posttrain.engines.loading import choose_device, load_model
from posttrain.errors import UserError
from posttrain.machine import Machine

MACHINE = Machine(device="cpu", threads=1)


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def refused(folder, says, kind="causal"):
    with pytest.raises(UserError, match=says) as caught:
        load_model(folder, MACHINE, kind)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_folder_loads_in_float32_on_cpu(tiny_model):
    loaded = load_model(tiny_model, MACHINE)
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert loaded.device.type == "cpu"


@pytest.mark.parametrize(
    ("removed", "says"),
    [("config.json", "no config.json"), ("model.safetensors", "no \\*.safetensors"), ("tokenizer.json", "tokenizer")],
)
def test_missing_files_are_named(folder, removed, says):
    (folder / removed).unlink()
    if removed == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    refused(folder, says)


def test_a_missing_folder_and_a_file_are_told_apart(folder):
    refused(folder / "nowhere", "does not exist")
    refused(folder / "config.json", "is a file")


def test_truncated_weights_are_said_to_be_unreadable(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, "cannot be loaded")


def test_a_broken_config_is_said_to_be_unreadable(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json of model .* cannot be read")


def test_a_language_model_is_no_reward_model(folder):
    refused(folder, "lack score.weight.*reward model", "reward")


def test_a_tokenizer_without_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    refused(folder, "no chat template")


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"new{number}" for number in range(600 - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    refused(folder, "has 600 tokens but the model's embedding 512 rows")


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device(Machine(device="cuda"))


def test_an_engine_that_is_not_installed_is_told_with_its_pip_line(tiny_model):
    with pytest.raises(UserError, match=r"vllm is not installed .*; pip install 'posttrain\[vllm\]'"):
        open_engine(tiny_model, Machine(device="cpu", engine="vllm"))
    with pytest.raises(UserError, match=r"starts vllm, which is not installed; pip install 'posttrain\[vllm\]'"):
        open_engine(tiny_model, Machine(device="cpu", engine="vllm-serve"))
