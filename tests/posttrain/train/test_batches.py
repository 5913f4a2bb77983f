"""The order of rows, their padding, and log-probabilities that do not depend on either."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

from posttrain.chat import Renderer
from posttrain.data.rows import Pair
from posttrain.engines.lists import collate, inputs_of
from posttrain.engines.loading import load_model
from posttrain.machine import Machine
from posttrain.train.batches import (
    IGNORED,
    GlobalBatches,
    list_batches,
    lists_of,
    render_pair,
    render_row,
    token_logprobs,
)

from .helpers import make_pairs, make_rows


def test_each_epoch_holds_every_row_once_and_batches_do_not_depend_on_length() -> None:
    lengths = [(i * 37) % 50 for i in range(25)]
    order, flat = GlobalBatches(lengths, 8, seed=3), GlobalBatches([1] * 25, 8, seed=3)
    passes = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        flat.set_epoch(epoch)
        items, unsorted = list(order), list(flat)
        assert sorted(items) == list(range(25))
        for start in range(0, 25, 8):
            batch = items[start : start + 8]
            assert set(batch) == set(unsorted[start : start + 8])
            assert [lengths[i] for i in batch] == sorted((lengths[i] for i in batch), reverse=True)
        passes.append(items)
    assert passes[0] != passes[1]
    assert list(GlobalBatches(lengths, 8, seed=3)) == passes[0]
    assert list(GlobalBatches(lengths, 8, seed=4)) != passes[0]


def test_a_row_is_trained_on_its_answer_and_end_of_turn_only(tiny_model: Path) -> None:
    renderer = Renderer.from_pretrained(tiny_model)
    row = make_rows(1)[0]
    example = render_row(renderer, row)
    prompt = renderer.prompt(row.messages[:-1])
    trained = [label for label in example["labels"] if label != IGNORED]
    assert example["input_ids"][: len(prompt)] == prompt
    assert example["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    assert trained == example["input_ids"][len(prompt) :]
    assert trained[-1] == renderer.eot_id


def pairs_of(question: str, *ranked: str) -> list[Pair]:
    """Every pair of the answers, best first."""
    prompt = ({"role": "user", "content": question},)
    answers = [{"role": "assistant", "content": text} for text in ranked]
    return [Pair(prompt, *two, "general", prompt_id=question) for two in combinations(answers, 2)]


def test_pairs_of_one_prompt_are_one_list_with_each_answer_once(tiny_model: Path) -> None:
    renderer = Renderer.from_pretrained(tiny_model)
    pairs = [*pairs_of("one?", "a", "b c", "d"), *pairs_of("two?", "x", "y"), *pairs_of("one?", "d", "e")]
    first, second = lists_of([render_pair(renderer, pair) for pair in pairs])
    texts = [renderer.tokenizer.decode(answer[:-1]).strip() for answer in first.answers.answers]
    assert texts == ["a", "b c", "d", "e"]
    assert first.pairs == [(0, 1), (0, 2), (1, 2), (2, 3)]
    assert first.places == [0, 1, 2, 4]
    assert (second.pairs, second.places) == ([(0, 1)], [3])
    assert first.answers.prompt == renderer.prompt(pairs[0].prompt)
    assert all(answer[-1] == renderer.eot_id for answer in first.answers.answers)


def test_a_batch_names_the_rows_of_its_pairs(tiny_model: Path) -> None:
    renderer = Renderer.from_pretrained(tiny_model)
    pairs = [*pairs_of("one?", "a", "b", "c"), *pairs_of("two?", "x", "y")]
    lists = lists_of([render_pair(renderer, pair) for pair in pairs])
    [(numbers, batch)] = list_batches(lists, renderer.pad_id, 10_000, can_share=True, kept=1)
    expected = {0: [[0, 1], [0, 2], [1, 2], [3, 4]], 1: [[0, 1], [2, 3], [2, 4], [3, 4]]}[numbers[0]]
    assert batch["pairs"].tolist() == expected
    assert batch["tokens"] == sum(item.answers.tokens for item in lists)


@pytest.mark.parametrize("shared", [True, False])
def test_logprobs_and_gradients_equal_those_of_single_rows(tiny_model: Path, shared: bool) -> None:
    """Both layouts of a batch give what each row gives alone, taken from the full logits."""
    loaded = load_model(tiny_model, Machine(device="cpu", threads=1))
    pairs = [*pairs_of("the cat sat on a mat " * 9, "yes", "no no no", "a bird sang"), *make_pairs(5)]
    lists = [item.answers for item in lists_of([render_pair(loaded.renderer, pair) for pair in pairs])]
    results = []
    batch = collate(lists, loaded.renderer.pad_id, can_share=False, kept=1, force_shared=shared)
    assert ("prefix_ids" in batch) == shared
    found = token_logprobs(loaded.model, inputs_of(loaded.model, batch), batch["marks"] > 0)
    found.sum().backward()
    results.append([parameter.grad.clone() for parameter in loaded.model.parameters()])
    loaded.model.zero_grad()
    single = []
    for item in lists:
        for answer in item.answers:
            ids = torch.tensor([item.prompt + answer])
            logits = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            single.append(logits.gather(1, ids[0, 1:, None]).squeeze(1)[len(item.prompt) - 1 :])
    torch.cat(single).sum().backward()
    results.append([parameter.grad for parameter in loaded.model.parameters()])
    assert found[batch["marks"] > 0].tolist() == pytest.approx(torch.cat(single).tolist(), abs=1e-5)
    for ours, separate in zip(*results, strict=True):
        assert float((ours - separate).norm() / separate.norm()) < 1e-5
