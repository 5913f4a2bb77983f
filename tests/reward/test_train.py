"""The reward model: what it is measured on, where it reads its score, and that it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig as TrlArguments
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from posttrain.data.rows import Pair
from posttrain.engines.loading import load_model
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train.batches import PairCollator, render_pair
from posttrain.train.trainer import arguments
from reward import train
from reward.train_spec import RewardConfig

from ..posttrain.train.helpers import folder_with, make_job, make_pairs

CONFIG = RewardConfig(learning_rate=5e-3, epochs=4, batch_size=8, heldout_share=0.3)


def job_of(folder: Path, model: Path, pairs: list[Pair], config: RewardConfig = CONFIG, **more: Any) -> Job:
    data = folder_with(folder.with_name(folder.name + "-data"), "preferences", pairs)
    return make_job(folder, config, {"preferences": [data], "init": model}, name="reward", **more)


def test_it_learns_repeats_and_is_measured_on_prompts_it_never_saw(tmp_path: Path, tiny_model: Path) -> None:
    pairs = make_pairs(80)
    job, again = job_of(tmp_path / "a", tiny_model, pairs), job_of(tmp_path / "b", tiny_model, pairs)
    train.run(job)
    train.run(again)
    held = [pair for pair in pairs if train.is_held_out(pair, 0.3)]
    heldout = job.summary["heldout"]
    assert heldout["n"] == len(held)
    assert job.summary["pairs"] == 80 - len(held)
    assert heldout["accuracy"] >= 0.9
    assert heldout["low"] < heldout["accuracy"] <= heldout["high"]
    assert sum(part["n"] for part in heldout["by_capability"].values()) == len(held)
    assert job.summary["loss_last"] < job.summary["loss_first"]
    assert (job.folder / "model.safetensors").read_bytes() == (again.folder / "model.safetensors").read_bytes()
    loaded = load_model(job.folder, Machine(device="cpu", threads=1), kind="reward")
    examples = [render_pair(loaded.renderer, pair) for pair in held]
    right = [margin > 0 for margin in train.margins(job, loaded, examples)]
    assert sum(right) / len(right) == heldout["accuracy"]


def test_the_score_is_read_at_the_end_of_turn_alone_and_padded(tmp_path: Path, tiny_model: Path) -> None:
    loaded = train.reward_model(load_model(tiny_model, Machine(device="cpu", threads=1)), seed=1)
    pairs = [render_pair(loaded.renderer, pair) for pair in make_pairs(6)]
    with torch.no_grad():
        alone = []
        for row in [pair[f"{side}_ids"] for side in ("chosen", "rejected") for pair in pairs]:
            assert row[-1] == loaded.renderer.eot_id
            hidden = loaded.model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
            alone.append(loaded.model.score(hidden[-1]).item())
        for shared in (True, False):
            batch = PairCollator(loaded.renderer.pad_id, shared)(pairs)
            chosen, rejected = train.rewards(loaded.model, batch)
            assert [*chosen.tolist(), *rejected.tolist()] == pytest.approx(alone, abs=1e-5)


def test_the_loss_and_its_gradients_are_trls(tmp_path: Path, tiny_model: Path) -> None:
    """TRL's own loss on whole rows is the oracle for ours on shared prompts."""
    loaded = train.reward_model(load_model(tiny_model, Machine(device="cpu", threads=1)), seed=1)
    job = job_of(tmp_path / "a", tiny_model, make_pairs(6))
    examples = [render_pair(loaded.renderer, pair) for pair in make_pairs(6)]
    trainer = train.PreferenceTrainer(
        model=loaded.model,
        args=arguments(job, TrlArguments, 6, rows_each=2, remove_unused_columns=False),
        train_dataset=Dataset.from_list(examples),
        data_collator=PairCollator(loaded.renderer.pad_id, shared=True),
        processing_class=loaded.renderer.tokenizer,
    )
    whole_rows = DataCollatorForPreference(loaded.renderer.pad_id)(examples)
    results = []
    for loss in (
        trainer.compute_loss(loaded.model, trainer.data_collator(examples), num_items_in_batch=torch.tensor(6)),
        RewardTrainer.compute_loss(trainer, loaded.model, whole_rows),
    ):
        loaded.model.zero_grad()
        loss.backward()
        gradients = [p.grad.clone() for p in loaded.model.parameters() if p.grad is not None]
        results.append((loss.item(), gradients))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_the_backbone_is_the_language_models_and_the_head_follows_the_seed(tiny_model: Path) -> None:
    base = load_model(tiny_model, Machine(device="cpu", threads=1))
    one, same, other = (train.reward_model(base, seed).model for seed in (1, 1, 2))
    for name, tensor in base.model.base_model.state_dict().items():
        assert torch.equal(one.base_model.state_dict()[name], tensor)
    assert torch.equal(one.score.weight, same.score.weight)
    assert not torch.equal(one.score.weight, other.score.weight)


def test_micro_batches_of_any_size_give_the_same_loss(tmp_path: Path, tiny_model: Path) -> None:
    config = CONFIG.model_copy(update={"heldout_share": 0.0, "epochs": 1})
    lasts = []
    for micro in (16, 2):
        machine = Machine(device="cpu", threads=1, micro_batch=micro)
        job = job_of(tmp_path / str(micro), tiny_model, make_pairs(19), config, machine=machine)
        train.run(job)
        lasts.append(job.summary["loss_last"])
        assert "heldout" not in job.summary
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


def test_near_identical_answers_are_dropped_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    question = ({"role": "user", "content": "Ask"},)
    same = Pair(
        question,
        {"role": "assistant", "content": "a b"},
        {"role": "assistant", "content": "a  b\n"},
        "general",
        prompt_id="x",
    )
    job = job_of(tmp_path / "a", tiny_model, [*make_pairs(3), same])
    renderer = load_model(tiny_model, job.machine).renderer
    assert len(train.distinct_pairs(job, renderer)) == 3
    assert job.summary["drops"] == {"near_identical": 1}
    with pytest.raises(UserError, match="no preference pair is left"):
        train.run(job_of(tmp_path / "b", tiny_model, [same]))
