"""The reward model: what it is measured on, where it reads its score, and that it learns."""

import json
import math
import random
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import RewardConfig as TrlArguments
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from posttrain.data.rows import Pair
from posttrain.engines.loading import load_model
from posttrain.engines.scoring import load_scorer, rewards
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train.batches import lists_of, render_pair
from posttrain.train.trainer import list_trainer
from reward import train
from reward.one_row import OneRowCollator, one_row_rewards, rows_of
from reward.probe import check_probe
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
    assert (job.summary["pairs"], job.summary["prompts"]) == (80 - len(held), 80 - len(held))
    assert heldout["accuracy"] >= 0.9
    assert heldout["low"] < heldout["accuracy"] <= heldout["high"]
    assert sum(part["n"] for part in heldout["by_capability"].values()) == len(held)
    assert job.summary["loss_last"] < job.summary["loss_first"]
    assert (job.folder / "model.safetensors").read_bytes() == (again.folder / "model.safetensors").read_bytes()
    loaded = load_scorer(job.folder, job.machine)
    measured = train.measure(loaded, [(pair, render_pair(loaded.renderer, pair)) for pair in held], 1000)
    assert sum(m.right for m in measured) / len(measured) == heldout["accuracy"]
    report = json.loads((job.folder / "report.json").read_text())
    assert report["accuracy"] == heldout["accuracy"]
    assert sum(part["n"] for part in report["calibration"]["bins"]) == len(held)
    assert sum(part["n"] for part in report["histogram"]) == len(held)


def ranked_pairs() -> list[Pair]:
    """Six prompts with three or four answers each, best first, as all their pairs."""
    pairs = []
    for i in range(6):
        prompt = ({"role": "user", "content": "the cat sat on the mat " * (1 + 9 * (i % 2)) + str(i)},)
        answers = [{"role": "assistant", "content": f"{word} " * (1 + i)} for word in ("yes", "so so", "no", "never")]
        pairs += [Pair(prompt, *two, "general", prompt_id=str(i)) for two in combinations(answers[: 3 + i % 2], 2)]
    return pairs


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_loss_of_lists_and_its_gradients_are_trls_on_the_equivalent_pairs(
    tmp_path: Path, tiny_model: Path, margin: float
) -> None:
    """TRL's own loss on whole rows, two a pair, is the oracle for ours on lists: each answer once, prompts shared."""
    loaded = train.reward_model(load_model(tiny_model, Machine(device="cpu", threads=1)), seed=1)
    config = CONFIG.model_copy(update={"margin": margin, "batch_size": 6})
    job = job_of(tmp_path / "a", tiny_model, ranked_pairs(), config)
    pairs = ranked_pairs()
    examples = [render_pair(loaded.renderer, pair) for pair in pairs]
    lists = [train._with_margins(job, item, list(zip(pairs, examples, strict=True))) for item in lists_of(examples)]
    assert (len(lists), sum(len(item.pairs) for item in lists)) == (6, 27)
    trainer = list_trainer(job, loaded, lists, train.ListTrainer, TrlArguments)
    batch = trainer.data_collator([{"item": i} for i in range(6)])
    total = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert any("prefix_ids" in part for part in batch["parts"])
    loaded.model.zero_grad()
    ours = 0.0
    for part in batch["parts"]:
        loss = trainer.compute_loss(loaded.model, part, num_items_in_batch=total)
        loss.backward()
        ours += loss.item()
    gradients = [p.grad.clone() for p in loaded.model.parameters() if p.grad is not None]
    more = {"margin": margin} if margin else {}
    whole_rows = DataCollatorForPreference(loaded.renderer.pad_id)([{**example, **more} for example in examples])
    loaded.model.zero_grad()
    theirs = RewardTrainer.compute_loss(trainer, loaded.model, whole_rows)
    theirs.backward()
    assert ours == pytest.approx(theirs.item(), abs=1e-5)
    for mine, other in zip(gradients, [p.grad for p in loaded.model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-3)


def test_a_margin_follows_the_rating(tmp_path: Path, tiny_model: Path) -> None:
    """Llama 2's discrete margin: all, two thirds, a third, none."""
    ratings = [None, "edited", "significantly_better", "better", "slightly_better", "marginally_better"]
    pairs = [replace(pair, rating=rating) for pair, rating in zip(make_pairs(6), ratings, strict=True)]
    job = job_of(tmp_path / "a", tiny_model, pairs, CONFIG.model_copy(update={"margin": 3.0}))
    renderer = load_model(tiny_model, job.machine).renderer
    proven = [(pair, render_pair(renderer, pair)) for pair in pairs]
    lists = lists_of([example for _, example in proven])
    found = [train._with_margins(job, item, proven).margins[0] for item in lists]
    assert found == pytest.approx([3.0, 3.0, 3.0, 2.0, 1.0, 0.0])


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
    for tokens in (16_384, 1):
        machine = Machine(device="cpu", threads=1, train_tokens=tokens)
        job = job_of(tmp_path / str(tokens), tiny_model, make_pairs(19), config, machine=machine)
        train.run(job)
        lasts.append(job.summary["loss_last"])
        assert "heldout" not in job.summary
    assert lasts[0] == pytest.approx(lasts[1], rel=1e-4)


def test_a_model_carries_rows_that_show_whether_it_is_read_as_it_was_trained(tmp_path: Path, tiny_model: Path) -> None:
    job = job_of(tmp_path / "a", tiny_model, make_pairs(12), CONFIG.model_copy(update={"epochs": 1}))
    train.run(job)
    loaded = load_scorer(job.folder, job.machine)
    check_probe(loaded, job.folder, "reward")
    template = job.folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("Cutting Knowledge", "Cut Knowledge"))
    with pytest.raises(UserError, match="reward reads other tokens than it was trained on"):
        check_probe(load_scorer(job.folder, job.machine), job.folder, "reward")
    with torch.no_grad():
        loaded.model.score.weight += 0.1
    with pytest.raises(UserError, match=r"reward scores a row -?\d+\.\d{4} that it scored .* when it was trained"):
        check_probe(loaded, job.folder, "reward")


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
    assert job.summary["drops"] == {"near_identical": 1, "rating": 0}
    with pytest.raises(UserError, match="no preference pair is left"):
        train.run(job_of(tmp_path / "b", tiny_model, [same]))


def test_weakly_rated_pairs_are_left_out_unless_named(tmp_path: Path, tiny_model: Path) -> None:
    ratings = [None, "edited", "significantly_better", "better", "slightly_better", "marginally_better"]
    pairs = [replace(pair, rating=rating) for pair, rating in zip(make_pairs(6), ratings, strict=True)]
    job = job_of(tmp_path / "a", tiny_model, pairs)
    renderer = load_model(tiny_model, job.machine).renderer
    assert {pair.rating for pair in train.distinct_pairs(job, renderer)} == set(ratings[:4])
    assert job.summary["drops"] == {"near_identical": 0, "rating": 2}
    named = job_of(tmp_path / "b", tiny_model, pairs, CONFIG.model_copy(update={"ratings": ("slightly_better",)}))
    assert {pair.rating for pair in train.distinct_pairs(named, renderer)} == {None, "slightly_better"}


def test_one_row_holds_every_answer_once_and_reads_it_at_its_own_end(tmp_path: Path, tiny_model: Path) -> None:
    """Against the plain backbone on the whole row; the answer that stands first scores what it scores alone."""
    loaded = train.reward_model(load_model(tiny_model, Machine(device="cpu", threads=1)), seed=1)
    examples = [render_pair(loaded.renderer, pair) for pair in ranked_pairs()]
    lists = lists_of(examples)
    rows = rows_of(lists, random.Random(5), room=2048)
    collator = OneRowCollator(lists, rows, loaded.renderer.pad_id, limit=100_000)
    scores, orders = {}, set()
    for number in range(6):
        (part,) = collator([{"item": number}])["parts"]
        with torch.no_grad():
            scores[number] = one_row_rewards(loaded.model, part).tolist()
    for number, (item, row) in enumerate(zip(lists, rows, strict=True)):
        order = sorted(range(len(row.ends)), key=row.ends.__getitem__)
        orders.add(tuple(order))
        said = [item.answers.answers[place] for place in order]
        assert row.ids == [*item.answers.prompt, *chain(*said)]
        assert all(row.ids[end] == answer[-1] for end, answer in zip(row.ends, item.answers.answers, strict=True))
        with torch.no_grad():
            hidden = loaded.model.base_model(input_ids=torch.tensor([row.ids])).last_hidden_state
            expected = loaded.model.score(hidden)[0, row.ends, 0].tolist()
        found = scores[number]
        assert found == pytest.approx(expected, abs=1e-5)
        alone = rewards(loaded, [item.answers], 100_000)[0]
        assert found[order[0]] == pytest.approx(alone[order[0]], abs=1e-5)
        assert found[order[-1]] != pytest.approx(alone[order[-1]], abs=1e-5)
    assert len(orders) > 2


def test_the_loss_of_one_row_is_bradley_terry_over_the_same_pairs(tmp_path: Path, tiny_model: Path) -> None:
    loaded = train.reward_model(load_model(tiny_model, Machine(device="cpu", threads=1)), seed=1)
    config = CONFIG.model_copy(update={"batch_size": 6, "one_row": True})
    job = job_of(tmp_path / "a", tiny_model, ranked_pairs(), config)
    lists = lists_of([render_pair(loaded.renderer, pair) for pair in ranked_pairs()])
    trainer, lengths = train._trainer(job, loaded, lists)
    batch = trainer.data_collator([{"item": i} for i in range(6)])
    total = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert (int(total), sum(int(part["tokens"]) for part in batch["parts"])) == (27, sum(lengths))
    ours, gaps = 0.0, []
    for part in batch["parts"]:
        ours += trainer.compute_loss(loaded.model, part, num_items_in_batch=total).item()
        scores = one_row_rewards(loaded.model, part).tolist()
        gaps += [scores[better] - scores[worse] for better, worse in part["pairs"].tolist()]
    assert ours == pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in gaps) / 27, abs=1e-5)


def test_a_model_learns_from_one_row(tmp_path: Path, tiny_model: Path) -> None:
    job = job_of(tmp_path / "a", tiny_model, make_pairs(80), CONFIG.model_copy(update={"one_row": True}))
    train.run(job)
    assert job.summary["heldout"]["accuracy"] >= 0.8
    lists = lists_of([render_pair(load_scorer(job.folder, job.machine).renderer, pair) for pair in make_pairs(3)])
    with pytest.raises(UserError, match=r"all its answers has \d+ tokens and the model takes 8; train with one_row: f"):
        rows_of(lists, random.Random(1), room=8)
