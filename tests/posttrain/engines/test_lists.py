"""Lists of answers: which layout is chosen, how they are cut into batches, and that both layouts say the same."""

import random

import pytest
import torch

from posttrain.engines.lists import LENGTH_STEP, PASS_TOKENS, AnswerList, Shape, batches, collate, inputs_of
from posttrain.engines.loading import load_model
from posttrain.engines.scoring import batch_rewards, rewards
from posttrain.machine import Machine

MACHINE = Machine(device="cpu", threads=1)


def some(prompt, *answers):
    return AnswerList([7] * prompt, [[8] * length for length in answers])


def shape_of(*lists):
    shape = Shape()
    for item in lists:
        shape = shape.add(item)
    return shape


def test_the_cost_of_both_layouts_worked_by_hand():
    """Prompts of 512 and 100 tokens, answers of at most 64: 2 prompts of 512 rows' tokens, 5 rows of 80 or 576."""
    shape = Shape(kept=1).add(some(513, 64, 30, 1)).add(some(101, 20, 8))
    assert shape.shared == 2 * 512 + 5 * 80
    assert shape.separate == 5 * 592
    assert shape.share()
    assert shape.cost(can_share=True) == 2 * 512 + 5 * 80 + 2 * PASS_TOKENS
    assert shape.cost(can_share=False) == 5 * 592 + PASS_TOKENS


def test_the_layout_follows_the_cost():
    """Token bound 6.0 for 16 answers of 64 to a prompt of 512; short prompts with long answers go unshared."""
    assert "prefix_ids" in collate([some(512, *[64] * 16)], 0)
    assert "prefix_ids" not in collate([some(48, 256, 256)], 0)
    assert "prefix_ids" not in collate([some(512, 64)], 0)
    assert "prefix_ids" not in collate([some(512, *[64] * 16)], 0, can_share=False)


def test_a_shared_batch_holds_what_follows_the_prompts():
    batch = collate([AnswerList([1, 2, 3], [[4], [5, 6]]), AnswerList([7, 8], [[9]])], 0, kept=1, force_shared=True)
    assert batch["prefix_ids"][:, :3].tolist() == [[1, 2, 0], [7, 0, 0]]
    assert batch["input_ids"][:, :4].tolist() == [[3, 4, 0, 0], [3, 5, 6, 0], [8, 9, 0, 0]]
    assert batch["position_ids"][:, :3].tolist() == [[2, 3, 4], [2, 3, 4], [1, 2, 3]]
    assert batch["prompt_of"].tolist() == [0, 0, 1]
    assert batch["attention_mask"].shape == (3, 2 * LENGTH_STEP)
    assert batch["attention_mask"].sum(1).tolist() == [4, 5, 3]


@pytest.mark.parametrize("limit", [100, 2_000, 100_000])
def test_batches_hold_every_list_once_and_cost_no_more_than_one_by_one_or_all_together(limit):
    rng = random.Random(limit)
    lists = [some(rng.randint(2, 900), *[rng.randint(1, 60)] * rng.randint(2, 8)) for _ in range(30)]
    cut = batches(lists, limit)
    assert sorted(number for batch in cut for number in batch) == list(range(30))
    costs = [shape_of(*[lists[i] for i in batch]).cost(True) for batch in cut]
    assert all(cost <= limit or len(batch) == 1 for cost, batch in zip(costs, cut, strict=True))
    assert sum(costs) <= sum(shape_of(item).cost(True) for item in lists)
    if limit == 100_000:
        assert sum(costs) <= shape_of(*lists).cost(True)


def test_batches_are_the_cheapest_of_all_ways_to_cut():
    """Against every cut of six lists in order of length."""
    lists = [
        some(p, *a)
        for p, a in [(20, [5, 5]), (60, [30] * 4), (300, [9, 9]), (310, [3] * 6), (900, [2, 2]), (40, [200, 180])]
    ]
    found = sum(shape_of(*[lists[i] for i in batch]).cost(True) for batch in batches(lists, 100_000))
    ordered = sorted(lists, key=lambda item: item.longest)
    every = []
    for cuts in range(2**5):
        groups, start = [], 0
        for end in range(1, 7):
            if end == 6 or cuts >> (end - 1) & 1:
                groups.append(ordered[start:end])
                start = end
        every.append(sum(shape_of(*group).cost(True) for group in groups))
    assert found == min(every)


def test_both_layouts_give_equal_rewards_and_gradients(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    rng = random.Random(1)
    ids = lambda n: [rng.randrange(10, 400) for _ in range(n)]  # noqa: E731
    lists = [
        AnswerList(ids(p), [ids(n) for n in answers]) for p, answers in [(90, (3, 20, 9)), (5, (30, 2)), (40, (7,))]
    ]
    results = []
    for shared in (True, False):
        loaded.model.zero_grad()
        scores = batch_rewards(loaded.model, collate(lists, loaded.renderer.pad_id, False, force_shared=shared))
        (scores * torch.arange(1.0, 7.0)).sum().backward()
        results.append((scores.detach(), [p.grad.clone() for p in loaded.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for ours, separate in zip(results[0][1], results[1][1], strict=True):
        assert float((ours - separate).norm()) <= 1e-5 * float(separate.norm())
    alone = [[rewards(loaded, [AnswerList(item.prompt, [a])], 1)[0][0] for a in item.answers] for item in lists]
    assert [value for own in alone for value in own] == pytest.approx(results[0][0].tolist(), abs=1e-5)


def test_the_prompt_runs_once_for_its_answers(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    seen = []
    loaded.model.base_model.register_forward_pre_hook(
        lambda module, args, options: seen.append(tuple(args[0].shape if args else options["input_ids"].shape)),
        with_kwargs=True,
    )
    with torch.no_grad():
        inputs = inputs_of(loaded.model, collate([some(256, *[15] * 8)], loaded.renderer.pad_id))
        loaded.model(**inputs)
    assert seen == [(1, 256), (8, 16)]
