"""A model with the template, date and padding that a recipe names: what is linked, what is written, what is refused."""

import json
import shutil
import typing
from pathlib import Path

import huggingface_hub.constants as hub
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.chat import TEMPLATES, Renderer
from posttrain.engines.folders import model_folder
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.prepare import run
from posttrain.train.prepare_spec import PrepareConfig, Template
from tests.posttrain.train.helpers import bare_model

ASKED = [{"role": "user", "content": "Hello"}]


def prepared(source: Path | str, folder: Path, **config: str) -> Job:
    folder.mkdir()
    job = Job(PrepareConfig(model="base", **config), {"model": source}, folder, 0, 0, "prepare-base")  # type: ignore[arg-type]
    run(job)
    return job


def test_the_spec_knows_the_templates_by_name() -> None:
    assert set(typing.get_args(Template)) == TEMPLATES.keys()


def test_weights_are_linked_and_every_reader_finds_template_date_pad_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    source = bare_model(tiny_model, tmp_path / "bare")
    with pytest.raises(UserError, match="has no chat template"):
        Renderer.from_pretrained(source)
    job = prepared(source, tmp_path / "out", template="llama-3.1", date="20 Nov 2026", tools_in="system")

    for name in ("model.safetensors", "config.json"):
        assert (job.folder / name).stat().st_ino == (source / name).stat().st_ino
    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    eot, eom, pad, end = (
        tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("eot_id", "eom_id", "finetune_right_pad_id", "end_of_text")
    )
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (pad, eot)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    said = tokenizer.apply_chat_template([{"role": "system", "content": ""}, *ASKED], tools=[tool], tokenize=False)
    assert "Today Date: 20 Nov 2026" in said and said.index('"name": "f"') < said.index("Hello")

    settings = json.loads((job.folder / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [eot, eom, end] and settings["pad_token_id"] == pad
    assert settings["temperature"] == 0.6, "the model's own settings stay"
    assert AutoModelForCausalLM.from_pretrained(job.folder).generation_config.eos_token_id == [eot, eom, end]
    renderer = Renderer.from_pretrained(job.folder)
    assert renderer.dialect == job.summary["dialect"] == "posttrain"
    named = Renderer.from_pretrained(source, "llama-3.1", "20 Nov 2026", "system")
    assert named.prompt(ASKED) == renderer.prompt(ASKED)


def test_a_date_alone_keeps_the_models_own_template(tiny_model: Path, tmp_path: Path) -> None:
    job = prepared(tiny_model, tmp_path / "out", date="1 Jan 2030")
    own, dated = Renderer.from_pretrained(tiny_model), Renderer.from_pretrained(job.folder)
    texts = [renderer.tokenizer.decode(renderer.prompt(ASKED)) for renderer in (own, dated)]
    assert texts[0].replace("26 Jul 2024", "1 Jan 2030") == texts[1] != texts[0]


def test_a_hub_model_is_linked_from_its_snapshot(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, commit = tmp_path / "cache", "0" * 40
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    entry = cache / "models--some--model"
    shutil.copytree(tiny_model, entry / "blobs")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    snapshot = entry / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for blob in (entry / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(blob)
    job = prepared("some/model", tmp_path / "out", template="llama-3.1")
    weights = job.folder / "model.safetensors"
    assert not weights.is_symlink() and weights.stat().st_ino == (entry / "blobs" / weights.name).stat().st_ino
    assert model_folder("some/model", commit) == snapshot
    with pytest.raises(UserError, match="other/model is neither a folder nor in the hub's cache"):
        prepared("other/model", tmp_path / "other", template="llama-3.1")


def test_a_template_that_does_not_fit_the_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    source = bare_model(tiny_model, tmp_path / "bare")
    tokens = (source / "tokenizer.json").read_text().replace("<|eom_id|>", "<|other|>")
    (source / "tokenizer.json").write_text(tokens)
    with pytest.raises(UserError, match=r"writes <\|eom_id\|>, which is no token of its"):
        prepared(source, tmp_path / "out", template="llama-3.1")
