"""DPO as a stage: every loss against TRL's, what is logged, and what training does to the pairs."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer

from posttrain.chat import Renderer
from posttrain.engines.lists import collate
from posttrain.engines.loading import load_model
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train import dpo
from posttrain.train.batches import Listed, lists_of, preference_mask
from posttrain.train.dpo_spec import TOGETHER, DpoConfig, Loss

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
    lists = [replace(item, reference=[-20.0 - i, -25.0 - 2.0 * i], kinds=[i % 2]) for i, item in enumerate(lists)]
    job = replace(job, config=DpoConfig.model_validate(job.config.model_dump() | settings))
    return dpo.preference_trainer(job, loaded, lists, ("general", "tool_use")), loaded.model, lists


def batch_of(lists: list[Listed], shared: bool) -> dict[str, torch.Tensor]:
    """The lists as one batch of one layout."""
    batch = collate([item.answers for item in lists], PAD, can_share=False, kept=1, force_shared=shared)
    batch["pairs"] = torch.tensor([(2 * i, 2 * i + 1) for i in range(len(lists))])
    batch["reference"] = torch.tensor([value for item in lists for value in item.reference])
    batch["kinds"] = torch.tensor([kind for item in lists for kind in item.kinds])
    return batch


def theirs(lists: list[Listed], masked: bool = True) -> dict[str, torch.Tensor]:
    """The lists as TRL's collator gives them."""
    whole = batch_of(lists, shared=False)
    chosen_first = torch.arange(2 * len(lists)).view(-1, 2).T.flatten()
    return {
        "input_ids": whole["input_ids"][chosen_first],
        "attention_mask": (whole["input_ids"] != PAD).long()[chosen_first],
        "completion_mask": preference_mask(whole["marks"], masked).long()[chosen_first],
        "ref_chosen_logps": whole["reference"][::2], "ref_rejected_logps": whole["reference"][1::2],
    }  # fmt: skip


def check_equal(trainer: Any, model: Any, batch: dict[str, torch.Tensor], peer: dict[str, torch.Tensor]) -> None:
    """Loss and gradients of our batch are those of TRL's own pass over its batch."""
    results = []
    for loss in (
        trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(len(batch["pairs"]))),
        DPOTrainer.compute_loss(trainer, model, peer),
    ):
        model.zero_grad()
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for ours, other in zip(results[0][1], results[1][1], strict=True):
        assert float((ours - other).norm()) <= 1e-5 * float(other.norm())


@pytest.mark.parametrize(("masked", "shared"), [(True, True), (True, False), (False, True)])
def test_the_preference_term_and_its_gradients_are_trls(
    tmp_path: Path, tiny_model: Path, data: Path, masked: bool, shared: bool
) -> None:
    trainer, model, lists = trainer_of(
        job_of(tmp_path / "a", tiny_model, data), nll_weight=0.0, mask_format_tokens=masked
    )
    check_equal(trainer, model, batch_of(lists[:6], shared), theirs(lists[:6], masked))


def test_the_losses_are_those_that_trl_names() -> None:
    told = TrlArguments.__dataclass_fields__["loss_type"].metadata["help"].split("If multiple")[0]
    assert set(get_args(Loss)) == set(re.findall(r"'(\w+)'", told))
    with pytest.raises(ValidationError, match="Input should be 'sigmoid', 'hinge', 'ipo'"):
        DpoConfig.model_validate({"loss": "simpo"})


def test_every_other_loss_is_trls_on_shared_prompts(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    smoothed = job_of(tmp_path / "a", tiny_model, data)
    trainer, model, lists = trainer_of(smoothed, nll_weight=0.0, loss="robust", label_smoothing=0.1)
    batch, peer = batch_of(lists[:6], shared=True), theirs(lists[:6])
    for name in get_args(Loss):
        trainer.loss_types, trainer.settings = [name], trainer.settings.model_copy(update={"loss": name})
        check_equal(trainer, model, batch, peer)


def test_a_loss_that_cannot_be_had_is_refused_by_name() -> None:
    for values, says in (
        ({"loss": "exo_pair"}, "exo_pair needs a label_smoothing above 0"),
        (
            {"label_smoothing": 0.1},
            "read by exo_pair, robust, aot, aot_unpaired, and loss is sigmoid",
        ),
        ({"loss": "aot", "launch": "ddp"}, "aot looks at all pairs of a step at once; launch it inline or one_gpu"),
    ):
        with pytest.raises(ValidationError, match=says):
            DpoConfig.model_validate(values)


@pytest.mark.parametrize("loss", ["apo_zero", "aot"])
def test_another_loss_trains_and_its_steps_do_not_depend_on_the_micro_batch(
    tmp_path: Path, tiny_model: Path, data: Path, loss: str
) -> None:
    config = DpoConfig.model_validate(CONFIG.model_dump() | {"loss": loss})
    assert loss == "apo_zero" or loss in TOGETHER
    lasts = []
    for tokens in (16_384, 1):
        machine = Machine(device="cpu", threads=1, train_tokens=tokens)
        job = job_of(tmp_path / str(tokens), tiny_model, data, config, machine=machine)
        dpo.run(job)
        assert job.summary["margin_last"] > 0.02
        lasts.append(job.summary["loss_last"])
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_in_bfloat16_step_zero_is_log_two_as_well(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """The reference goes through the same kernels in the same precision as the policy."""
    job = job_of(tmp_path / "a", tiny_model, data, machine=Machine(device="cuda"))
    dpo.run(job)
    lines = [json.loads(line) for line in (job.folder / "training.jsonl").read_text().splitlines()]
    assert lines[0]["loss/preference"] == pytest.approx(math.log(2), abs=1e-2)
    assert lines[-1]["loss/preference"] < lines[0]["loss/preference"]


def test_micro_batches_of_any_size_give_the_same_loss(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """Also where the last global batch holds four pairs only."""
    lasts = []
    for tokens in (16_384, 1):
        machine = Machine(device="cpu", threads=1, train_tokens=tokens)
        job = job_of(tmp_path / str(tokens), tiny_model, data, machine=machine)
        dpo.run(job)
        lasts.append(job.summary["loss_last"])
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


def test_the_log_and_the_summary_tell_capabilities_apart(tmp_path: Path, tiny_model: Path, data: Path) -> None:
    """One step over all pairs: what it logs is what single rows give, over all pairs and over those of one kind."""
    job = job_of(tmp_path / "a", tiny_model, data, CONFIG.model_copy(update={"epochs": 1, "batch_size": 20}))
    dpo.run(job)
    [line] = [json.loads(line) for line in (job.folder / "training.jsonl").read_text().splitlines()]
    loaded = load_model(tiny_model, job.machine)
    found: dict[str, list[tuple[float, int, int]]] = {"general": [], "tool_use": []}
    for pair, example in dpo.load(job_of(tmp_path / "b", tiny_model, data), loaded.renderer):
        ids, mask = torch.tensor([example["chosen_ids"]]), example["chosen_mask"]
        with torch.no_grad():
            logprobs = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        counted = preference_mask(torch.tensor(mask), True)[1:]
        lengths = (sum(value > 0 for value in example[f"{side}_mask"]) for side in ("chosen", "rejected"))
        found[pair.capability].append((float(logprobs[counted].sum()), *lengths))
    of = {"": [*found["general"], *found["tool_use"]], "/general": found["general"], "/tool_use": found["tool_use"]}
    for end, own in of.items():
        assert line[f"pairs{end}"] == len(own)
        means = [sum(values) / len(own) for values in zip(*own, strict=True)]
        told = [line[f"{name}{end}"] for name in ("logps/chosen", "length/chosen", "length/rejected")]
        assert told == pytest.approx(means, rel=1e-4)
        assert line[f"kl{end}"] == pytest.approx(0.0, abs=1e-6)
    assert job.summary["by_capability"]["tool_use"]["pairs"] == 10
    assert job.summary["by_capability"]["tool_use"]["chosen_logprob"] == line["logps/chosen/tool_use"]
    assert job.summary["last_steps"]["pairs"] == 20


def test_a_fall_of_the_chosen_answers_is_told_in_a_sentence() -> None:
    """Three steps of a log, the last ten of which count: 1 pair with −4 and 3 pairs with −2 are −2.5 a pair."""
    zero = dict.fromkeys(dpo.SHOWN, 0.0)

    def line(own: dict[str, tuple[int, float]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for end, (pairs, change) in own.items():
            values = zero | {"logps/chosen_change": change, "length/chosen": 20.0}
            found |= {f"pairs{end}": pairs} | {f"{name}{end}": value for name, value in values.items()}
        return found

    lines = [line({"": (5, 50.0), "/a": (5, 50.0)})] + [line({"": (4, -2.5), "/a": (3, -2.0), "/b": (1, -4.0)})] * 10
    found = dpo.summary(lines, ("a", "b"))
    assert found["last_steps"]["pairs"] == 40 and found["last_steps"]["chosen_logprob_change"] == -2.5
    assert found["by_capability"]["a"]["chosen_logprob_change"] == -2.0
    assert dpo.fall(found).startswith(
        "the chosen answers became less likely: 2.50 nats below the reference at the end, for answers of 20 tokens "
        "(most in b, 4.00); "
    )
    assert dpo.fall(dpo.summary(lines[:1], ("a",))) == ""


def test_annotated_pairs_come_from_their_own_table_and_none_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    prefs = folder_with(tmp_path / "prefs", "preferences", make_pairs(4))
    both = make_job(tmp_path / "a", CONFIG, {"preferences": [prefs], "pairs": [], "init": tiny_model}, name="dpo")
    assert len(dpo.load(both, Renderer.from_pretrained(tiny_model))) == 4
    empty = job_of(tmp_path / "b", tiny_model, folder_with(tmp_path / "empty", "pairs", []))
    with pytest.raises(UserError, match="no pair to train on"):
        dpo.run(empty)
