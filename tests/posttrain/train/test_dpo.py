"""DPO as a stage: the loss against TRL's, the stored reference, and what training does to the pairs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer

from posttrain.chat import Renderer
from posttrain.engines.lists import collate
from posttrain.engines.loading import load_model
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train import dpo
from posttrain.train.batches import Listed, lists_of, preference_mask
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.trainer import list_trainer

from .helpers import folder_with, make_job, make_pairs

PAD = 0
"""Any id that a tiny model knows: padding is not looked at."""
CONFIG = DpoConfig(learning_rate=1e-3, epochs=2, batch_size=8, chunk=6)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "data", "pairs", make_pairs(20))


def job_of(folder: Path, model: Path, data: Path, config: DpoConfig = CONFIG, **more: Any) -> Job:
    return make_job(folder, config, {"pairs": [data], "init": model, "reference": model}, name="dpo", **more)


def trainer_of(job: Job, **settings: Any) -> tuple[Any, Any, list[Listed]]:
    """A trainer on the job's pairs, its model, and the lists with made-up reference log-probabilities."""
    loaded = load_model(job.inputs["init"], job.machine)
    lists = lists_of([example for _, example in dpo.load(job, loaded.renderer)])
    lists = [replace(item, reference=[-20.0 - i, -25.0 - 2.0 * i]) for i, item in enumerate(lists)]
    job = replace(job, config=job.config.model_copy(update=settings))
    trainer = list_trainer(job, loaded, lists, dpo.PreferenceTrainer, TrlArguments, precompute_ref_log_probs=True)
    return trainer, loaded.model, lists


def batch_of(lists: list[Listed], shared: bool) -> dict[str, torch.Tensor]:
    """The lists as one batch of one layout."""
    batch = collate([item.answers for item in lists], PAD, can_share=False, kept=1, force_shared=shared)
    batch["pairs"] = torch.tensor([(2 * i, 2 * i + 1) for i in range(len(lists))])
    batch["reference"] = torch.tensor([value for item in lists for value in item.reference])
    return batch


@pytest.mark.parametrize(("masked", "shared"), [(True, True), (True, False), (False, True)])
def test_the_preference_term_and_its_gradients_are_trls(
    tmp_path: Path, tiny_model: Path, data: Path, masked: bool, shared: bool
) -> None:
    trainer, model, lists = trainer_of(
        job_of(tmp_path / "a", tiny_model, data), nll_weight=0.0, mask_format_tokens=masked
    )
    whole = batch_of(lists[:6], shared=False)
    chosen_first = torch.arange(12).view(-1, 2).T.flatten()
    theirs = {
        "input_ids": whole["input_ids"][chosen_first],
        "attention_mask": (whole["input_ids"] != PAD).long()[chosen_first],
        "completion_mask": preference_mask(whole["marks"], masked).long()[chosen_first],
        "ref_chosen_logps": whole["reference"][::2], "ref_rejected_logps": whole["reference"][1::2],
    }  # fmt: skip
    results = []
    for loss in (
        trainer.compute_loss(model, batch_of(lists[:6], shared), num_items_in_batch=torch.tensor(6)),
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
    trainer, model, lists = trainer_of(job)
    with torch.no_grad():
        losses = []
        for weight in (0.0, 0.2):
            trainer.settings = job.config.model_copy(update={"nll_weight": weight})
            batch = batch_of(lists[:6], shared=True)
            losses.append(trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(6)).item())
        expected = 0.0
        for item in lists[:6]:
            prompt, chosen = item.answers.prompt, item.answers.answers[0]
            ids = torch.tensor([prompt + chosen])
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            taken = logits.gather(1, ids[0, 1:, None]).squeeze(1)[len(prompt) - 1 :]
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


def test_micro_batches_of_any_size_give_the_same_loss(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """Also where the last global batch holds four pairs only."""
    lasts = []
    for tokens in (16_384, 1):
        machine = Machine(device="cpu", threads=1, train_tokens=tokens)
        job = job_of(tmp_path / str(tokens), tiny_model, data, machine=machine)
        dpo.run(job)
        lasts.append(job.summary["loss_last"])
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


def test_a_stopped_reference_pass_goes_on_where_it_was(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    whole = job_of(tmp_path / "whole", tiny_model, data)
    lists = lists_of([example for _, example in dpo.load(whole, Renderer.from_pretrained(tiny_model))])
    expected = dpo.reference_logprobs(whole, lists)
    events: list[dict[str, Any]] = []
    stopped = job_of(tmp_path / "part", tiny_model, data, report=events.append, stopping=lambda: len(events) == 2)
    with pytest.raises(Interrupted, match="stopped at 12 of 20 reference prompts"):
        dpo.reference_logprobs(stopped, lists)
    del events[:]
    resumed = job_of(tmp_path / "part", tiny_model, data, report=events.append)
    assert dpo.reference_logprobs(resumed, lists) == expected
    assert [event["done"] for event in events] == [18, 20]


def test_annotated_pairs_come_from_their_own_table_and_none_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    prefs = folder_with(tmp_path / "prefs", "preferences", make_pairs(4))
    both = make_job(tmp_path / "a", CONFIG, {"preferences": [prefs], "pairs": [], "init": tiny_model}, name="dpo")
    assert len(dpo.load(both, Renderer.from_pretrained(tiny_model))) == 4
    empty = job_of(tmp_path / "b", tiny_model, folder_with(tmp_path / "empty", "pairs", []))
    with pytest.raises(UserError, match="no pair to train on"):
        dpo.run(empty)
