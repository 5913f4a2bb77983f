"""SFT as a stage: what it trains, that it repeats to the bit, and what it refuses."""

import importlib.util
import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import SFTConfig as TrlArguments
from trl import SFTTrainer

from posttrain.chat import Renderer
from posttrain.errors import Interrupted, StageFailed, UserError
from posttrain.machine import Launch, Machine
from posttrain.stages import Job
from posttrain.train import sft
from posttrain.train.batches import IGNORED, render_row
from posttrain.train.reporter import Reporter, token_flops
from posttrain.train.settings import Tracker
from posttrain.train.sft_spec import SftConfig
from posttrain.train.trainer import arguments

from .helpers import folder_with, make_job, make_rows

CONFIG = SftConfig(learning_rate=2e-3, epochs=2, batch_size=8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "data", "rows", make_rows(19))


def trained(tmp_path: Path, name: str, model: Path, data: Path, config: SftConfig = CONFIG, **more: Any) -> Job:
    job = make_job(tmp_path / name, config, {"data": [data], "init": model}, name="sft", **more)
    sft.run(job)
    return job


def weights(job: Job) -> dict[str, torch.Tensor]:
    return load_file(job.folder / "model.safetensors")


def test_the_same_inputs_give_the_same_bytes_and_another_seed_does_not(
    tmp_path: Path, tiny_model: Path, data: Path
) -> None:
    first, again = trained(tmp_path, "a", tiny_model, data), trained(tmp_path, "b", tiny_model, data)
    other = trained(tmp_path, "c", tiny_model, data, seed=18)
    for name in ("model.safetensors", "training.jsonl", "config.json", "README.md"):
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert (first.folder / "model.safetensors").read_bytes() != (other.folder / "model.safetensors").read_bytes()


def test_one_times_eight_is_eight_times_one(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """Accumulation does not change the loss, also in the last, smaller global batch."""
    whole = trained(tmp_path, "whole", tiny_model, data, machine=Machine(device="cpu", threads=1))
    parts = trained(tmp_path, "parts", tiny_model, data, machine=Machine(device="cpu", threads=1, train_tokens=1))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(parts)[name], atol=2e-5, rtol=1e-4)
    assert whole.summary["loss_first"] == pytest.approx(parts.summary["loss_first"], rel=1e-5)
    assert whole.summary["steps"] == parts.summary["steps"] == 6


def test_the_loss_falls_and_the_log_and_progress_tell_of_every_step(
    tmp_path: Path, tiny_model: Path, data: Path
) -> None:
    events: list[dict[str, Any]] = []
    job = trained(tmp_path, "a", tiny_model, data, report=events.append)
    lines = [json.loads(line) for line in (job.folder / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["learning_rate"] == pytest.approx(2e-3)
    assert job.summary["loss_last"] < job.summary["loss_first"]
    assert [(e["done"], e["total"]) for e in events] == [(i, 6) for i in range(1, 7)]
    renderer = Renderer.from_pretrained(tiny_model)
    examples = [render_row(renderer, row) for row in make_rows(19)]
    assert job.tokens == sum(event["tokens"] for event in events) == 2 * sum(len(e["input_ids"]) for e in examples)
    assert job.summary["trained_tokens"] == sum(label != IGNORED for e in examples for label in e["labels"])


def test_the_loss_and_its_gradients_are_trls(tmp_path: Path, tiny_model: Path) -> None:
    """TRL's own collator and loss on the same rows are the oracle."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from posttrain.engines.loading import load_model

    loaded = load_model(tiny_model, Machine(device="cpu", threads=1))
    examples = [render_row(loaded.renderer, row) for row in make_rows(6)]
    trainer = sft.row_trainer(make_job(tmp_path / "job", CONFIG, {}), loaded, examples)
    ours = trainer.data_collator([{"item": i} for i in range(6)])["parts"]
    columns = [{name: e[name] for name in ("input_ids", "labels")} for e in examples]
    theirs = DataCollatorForLanguageModeling(loaded.renderer.pad_id)(columns)
    items = torch.tensor(sum(trainer.items(part) for part in ours))
    assert items == sum(label != IGNORED for e in examples for label in e["labels"])
    results = []
    for batches, compute in ((ours, trainer.compute_loss), ([theirs], partial(SFTTrainer.compute_loss, trainer))):
        loaded.model.zero_grad()
        loss = sum(compute(loaded.model, dict(batch), num_items_in_batch=items) for batch in batches)
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in loaded.model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for mine, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_the_checkpoint_serves_in_plain_transformers(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """A bfloat16 family stays bfloat16, and `generate` stops where an answer ends."""
    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(half)
    job = trained(tmp_path, "a", half, data)
    served, tokenizer = AutoModelForCausalLM.from_pretrained(job.folder), AutoTokenizer.from_pretrained(job.folder)
    renderer = Renderer.from_pretrained(job.folder)
    messages = [{"role": "user", "content": "Say it."}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert served.dtype == torch.bfloat16
    assert (job.folder / "model.safetensors").stat().st_mode == (job.folder / "config.json").stat().st_mode
    assert served.config.use_cache
    assert ids == renderer.prompt(messages)
    assert set(served.generation_config.eos_token_id) == {*renderer.stop_ids, 1}
    assert served.generation_config.pad_token_id == renderer.pad_id
    out = served.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
    assert out.shape[1] > len(ids)
    card = (job.folder / "README.md").read_text()
    assert "- init: half" in card
    assert "- rows: 19" in card
    assert str(tmp_path) not in card


def test_stopping_leaves_no_weights(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    job = make_job(tmp_path / "a", CONFIG, {"data": [data], "init": tiny_model}, name="sft", stopping=lambda: True)
    with pytest.raises(Interrupted, match="stopped at 1 of 6 steps"):
        sft.run(job)
    assert not (job.folder / "model.safetensors").exists()


def test_a_diverging_run_is_one_sentence(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"sft, step \d of 6: (loss|grad_norm) became (nan|inf); lower learning_rate \(1e\+30\)"
    ):
        trained(
            tmp_path, "a", tiny_model, data, CONFIG.model_copy(update={"learning_rate": 1e30, "max_grad_norm": 0.0})
        )


def test_no_rows_and_long_rows_are_refused(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    empty = folder_with(tmp_path / "empty", "rows", [])
    with pytest.raises(UserError, match="no row to train on"):
        trained(tmp_path, "a", tiny_model, empty)
    with pytest.raises(UserError, match=r"no row is longer than the limit: .* and 16 more; the limit is 5 tokens"):
        trained(tmp_path, "b", tiny_model, data, CONFIG.model_copy(update={"max_length": 5}))


def test_a_model_that_cannot_be_trained_is_one_sentence(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    silent, small = (shutil.copytree(tiny_model, tmp_path / name) for name in ("silent", "small"))
    (silent / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    with pytest.raises(UserError, match="has no generation markers to say what is trained"):
        trained(tmp_path, "a", silent, data)
    tokenizer = AutoTokenizer.from_pretrained(small)
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(small)
    with pytest.raises(UserError, match=r"has \d+ tokens but the model's embedding 512 rows"):
        trained(tmp_path, "b", small, data)
    for name in ("a", "b"):
        assert not list((tmp_path / name).glob("*.safetensors"))


def test_weights_that_are_no_numbers_where_they_are_stored_are_not_saved(
    tmp_path: Path, tiny_model: Path, data: Path
) -> None:
    """One step, whose loss is from before the weights are moved by 100,000, more than float16 holds."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float16).save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(half)
    config = SftConfig(learning_rate=1e5, batch_size=19, warmup_ratio=0.0)
    with pytest.raises(StageFailed, match=r"sft: model\..* is not finite in float16, and nothing was saved; lower"):
        trained(tmp_path, "a", half, data, config)
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_one_process_has_one_device_however_many_there_are(tmp_path: Path) -> None:
    """transformers would take eight times the batch, and TRL refuse to train."""

    class OfEight(TrlArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 8

    job = make_job(tmp_path / "a", CONFIG, {})
    assert OfEight(str(tmp_path), per_device_train_batch_size=8, use_cpu=True, bf16=False).train_batch_size == 64
    found = arguments(job, OfEight, 19)
    assert (found.n_gpu, found.train_batch_size) == (1, 8)


def test_a_tracker_that_is_not_installed_is_one_sentence(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    for name in get_args(Tracker):
        assert name in INTEGRATION_TO_CALLBACK
    with pytest.raises(ValidationError, match="Input should be 'tensorboard'"):
        SftConfig(report_to=("tensorbord",))
    missing = [name for name in ("swanlab", "trackio", "mlflow") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("all trackers are installed")
    config = CONFIG.model_copy(update={"report_to": (missing[0],)})
    with pytest.raises(UserError, match=f"sft: report_to names {missing[0]}, which is not to be had here"):
        trained(tmp_path, "a", tiny_model, data, config)


def test_the_stage_log_says_of_each_step_what_a_person_wants_to_know(
    tmp_path: Path, tiny_model: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="posttrain.stage"):
        trained(tmp_path, "a", tiny_model, data)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step ")]
    assert len(lines) == 6
    form = r"step 2/6  loss \d+\.\d{4}  lr 1\.67e-03  [\d,]+ tok/s  [\d,]+ tokens  eta \d+ s  peak \d+\.\d\d GiB"
    assert re.fullmatch(form, lines[1]), lines[1]


def test_the_mfu_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 tokens/s of 8e9 parameters are 4.8e14 FLOP/s, 48.5% of an H200; half of that on two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 29)
    trainer = SimpleNamespace(token_flops=6 * 8e9, state=SimpleNamespace(num_input_tokens_seen=0))
    for device, processes, told in (
        ("NVIDIA H200", 1, ["peak 1.50 GiB", "mfu 48.5%"]),
        ("NVIDIA H100 80GB HBM3", 2, ["peak 1.50 GiB", "mfu 24.3%"]),
        ("Another", 1, ["peak 1.50 GiB"]),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=device: device)
        job = make_job(tmp_path / device, CONFIG, {}, launch=Launch(processes=processes))
        assert list(Reporter(job, trainer, [])._of_device(10_000.0)) == told


def test_adapters_cost_no_gradient_of_frozen_weights(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert token_flops(model) == 6 * parameters
    model.requires_grad_(False)
    model.model.norm.requires_grad_(True)
    assert token_flops(model) == 4 * parameters + 2 * 32
