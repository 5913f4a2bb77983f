"""Rotary settings: kept through a training, and refused before it where they were lost or a row is beyond them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.train import sft
from posttrain.train.context import TRAINED, context, same_rotary
from posttrain.train.sft_spec import SftConfig

from .helpers import folder_with, make_job, make_rows

LLAMA31 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
"""Of Llama 3.1's config.json."""


def model_with(tiny_model: Path, folder: Path, drop: str = "rope_parameters", **config: Any) -> Path:
    shutil.copytree(tiny_model, folder)
    path = folder / "config.json"
    found = json.loads(path.read_text())
    found.pop(drop, None)
    path.write_text(json.dumps(found | config))
    return folder


def test_a_trained_checkpoint_keeps_them(tmp_path: Path, tiny_model: Path) -> None:
    model = model_with(tiny_model, tmp_path / "model", rope_parameters=LLAMA31, max_position_embeddings=131072)
    data = folder_with(tmp_path / "data", "rows", make_rows(4))
    job = make_job(tmp_path / "a", SftConfig(batch_size=4), {"data": [data], "init": model},
                   machine=Machine(device="cpu", threads=1), name="sft")  # fmt: skip
    sft.run(job)
    written = json.loads((job.folder / "config.json").read_text())
    assert {name: written["rope_parameters"][name] for name in LLAMA31} == LLAMA31
    assert context(job.folder) == context(model) == 131072
    same_rotary(model, job.folder)


def test_those_of_older_configs_are_read(tmp_path: Path, tiny_model: Path) -> None:
    old = {name: value for name, value in LLAMA31.items() if name != "rope_theta"}
    model = model_with(tiny_model, tmp_path / "old", rope_scaling=old, rope_theta=500000.0)
    new = model_with(tiny_model, tmp_path / "new", rope_parameters=LLAMA31)
    assert context(model) == 2048
    same_rotary(model, new)


def test_lost_ones_are_one_sentence(tmp_path: Path, tiny_model: Path) -> None:
    bare: dict[str, Any] = {"rope_type": "default", "rope_theta": 500000.0}
    lost = model_with(tiny_model, tmp_path / "lost", rope_parameters=bare, max_position_embeddings=131072)
    with pytest.raises(UserError, match="131,072 positions at rope_theta 500,000 without rope scaling: it was lost"):
        context(lost)
    stated = bare | {TRAINED: 131072}
    meant = model_with(tiny_model, tmp_path / "meant", rope_parameters=stated, max_position_embeddings=131072)
    llama3 = model_with(tiny_model, tmp_path / "llama3", rope_parameters=bare, max_position_embeddings=8192)
    assert (context(meant), context(llama3)) == (131072, 8192)
    scaled = model_with(tiny_model, tmp_path / "scaled", rope_parameters=LLAMA31, max_position_embeddings=8192)
    with pytest.raises(UserError, match="train from models of one family, or mend the one that lost them"):
        same_rotary(scaled, llama3)


def test_a_limit_beyond_the_context_is_refused_before_training(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "data", "rows", make_rows(4))
    job = make_job(tmp_path / "a", SftConfig(max_length=2049), {"data": [data], "init": tiny_model}, name="sft")
    with pytest.raises(UserError, match=r"sft: max_length 2,049 is more than the 2,048 positions that .* can read"):
        sft.run(job)
    assert AutoConfig.from_pretrained(tiny_model).max_position_embeddings == 2048
