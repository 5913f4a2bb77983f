"""DPO as a stage: the loss against TRL's, the stored reference, and what training does to the pairs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import DPOTrainer

from posttrain.chat import Renderer
from posttrain.engines.loading import load_model
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train import dpo
from posttrain.train.batches import PairCollator, preference_mask
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.trainer import arguments

from .helpers import folder_with, make_job, make_pairs

CONFIG = DpoConfig(learning_rate=1e-3, epochs=2, batch_size=8, chunk=6)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "data", "pairs", make_pairs(20))


def job_of(folder: Path, model: Path, data: Path, config: DpoConfig = CONFIG, **more: Any) -> Job:
    return make_job(folder, config, {"pairs": [data], "init": model, "reference": model}, name="dpo", **more)


def trainer_of(job: Job, shared: bool = True, **settings: Any) -> tuple[dpo.PairTrainer, Any, dict[str, torch.Tensor]]:
    """A trainer on the job's pairs, its model, and one batch with made-up reference log-probabilities."""
    from datasets import Dataset
    from trl import DPOConfig as TrlArguments

    loaded = load_model(job.inputs["init"], job.machine)
    examples = dpo.load_pairs(job, loaded.renderer)
    stored = [{**e, "reference": [-20.0 - i, -25.0 - 2.0 * i]} for i, e in enumerate(examples)]
    more = {"remove_unused_columns": False, "precompute_ref_log_probs": True}
    trainer = dpo.PairTrainer(
        settings=job.config.model_copy(update=settings),
        model=loaded.model,
        args=arguments(job, TrlArguments, len(stored), rows_each=2, **more),
        train_dataset=Dataset.from_list(stored),
        data_collator=PairCollator(loaded.renderer.pad_id, shared),
        processing_class=loaded.renderer.tokenizer,
    )
    return trainer, loaded.model, trainer.data_collator(stored[:6])


@pytest.mark.parametrize("masked", [True, False])
def test_the_preference_term_and_its_gradients_are_trls(
    tmp_path: Path, tiny_model: Path, data: Path, masked: bool
) -> None:
    trainer, model, batch = trainer_of(
        job_of(tmp_path / "a", tiny_model, data), shared=False, nll_weight=0.0, mask_format_tokens=masked
    )
    chosen, rejected = batch["reference"].unbind(1)
    chosen_first = torch.arange(len(batch["input_ids"])).view(-1, 2).T.flatten()
    theirs = {
        "input_ids": batch["input_ids"][chosen_first], "attention_mask": batch["attention_mask"][chosen_first],
        "completion_mask": preference_mask(batch["mask"], masked).long()[chosen_first],
        "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    results = []
    for loss in (
        trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(6)),
        DPOTrainer.compute_loss(trainer, model, theirs),
    ):
        model.zero_grad()
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for ours, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-3)


def test_the_nll_term_is_added_per_token_with_its_weight(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    job = job_of(tmp_path / "a", tiny_model, data)
    trainer, model, batch = trainer_of(job)
    rows = trainer_of(job, shared=False)[2]
    with torch.no_grad():
        losses = []
        for weight in (0.0, 0.2):
            trainer.settings = job.config.model_copy(update={"nll_weight": weight})
            losses.append(trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(6)).item())
        expected = 0.0
        for i in range(6):
            length = int(rows["attention_mask"][2 * i].sum())
            ids = rows["input_ids"][2 * i : 2 * i + 1, :length]
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            taken = logits.gather(1, ids[0, 1:, None]).squeeze(1)[rows["mask"][2 * i, 1:length] > 0]
            expected += -taken.mean().item() / 6
    assert losses[1] - losses[0] == pytest.approx(0.2 * expected, rel=1e-4)


def test_step_zero_is_log_two_and_training_prefers_the_chosen(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    job = job_of(tmp_path / "a", tiny_model, data)
    dpo.run(job)
    lines = [json.loads(line) for line in (job.folder / "training.jsonl").read_text().splitlines()]
    assert lines[0]["loss/preference"] == pytest.approx(math.log(2), abs=1e-5)
    assert lines[0]["logps/chosen_change"] == pytest.approx(0.0, abs=1e-3)
    assert lines[-1]["loss/preference"] < lines[1]["loss/preference"] < math.log(2)
    assert job.summary["margin_last"] > 0.05
    assert job.summary["accuracy_last"] == 1.0
    assert job.summary["pairs"] == 20
    again = job_of(tmp_path / "b", tiny_model, data)
    dpo.run(again)
    assert (job.folder / "model.safetensors").read_bytes() == (again.folder / "model.safetensors").read_bytes()


def test_one_times_eight_is_eight_times_one(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """Also where the last global batch holds four pairs only."""
    lasts = []
    for micro in (16, 2):
        job = job_of(
            tmp_path / str(micro), tiny_model, data, machine=Machine(device="cpu", threads=1, micro_batch=micro)
        )
        dpo.run(job)
        lasts.append(job.summary["loss_last"])
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


def test_a_stopped_reference_pass_goes_on_where_it_was(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    whole = job_of(tmp_path / "whole", tiny_model, data)
    examples = dpo.load_pairs(whole, Renderer.from_pretrained(tiny_model))
    expected = dpo.reference_logprobs(whole, examples)
    events: list[dict[str, Any]] = []
    stopped = job_of(tmp_path / "part", tiny_model, data, report=events.append, stopping=lambda: len(events) == 2)
    with pytest.raises(Interrupted, match="stopped at 12 of 20 reference pairs"):
        dpo.reference_logprobs(stopped, examples)
    del events[:]
    resumed = job_of(tmp_path / "part", tiny_model, data, report=events.append)
    assert dpo.reference_logprobs(resumed, examples) == expected
    assert [event["done"] for event in events] == [18, 20]


def test_annotated_pairs_come_from_their_own_table_and_none_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    prefs = folder_with(tmp_path / "prefs", "preferences", make_pairs(4))
    both = make_job(tmp_path / "a", CONFIG, {"preferences": [prefs], "pairs": []}, name="dpo")
    assert len(dpo.load_pairs(both, Renderer.from_pretrained(tiny_model))) == 4
    empty = job_of(tmp_path / "b", tiny_model, folder_with(tmp_path / "empty", "pairs", []))
    with pytest.raises(UserError, match="no pair to train on"):
        dpo.run(empty)
