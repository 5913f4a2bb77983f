"""The order of rows, their padding, and log-probabilities that do not depend on either."""

from pathlib import Path

import pytest
import torch

from posttrain.chat import Renderer
from posttrain.engines.loading import load_model
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.train.batches import (
    IGNORED,
    GlobalBatches,
    PairCollator,
    micro_batch,
    model_inputs,
    pad_rows,
    refuse_long,
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


def test_micro_batch_divides_the_global_batch_and_fits() -> None:
    assert micro_batch(32, Machine(micro_batch=8)) == 8
    assert micro_batch(30, Machine(micro_batch=8)) == 6
    assert micro_batch(7, Machine(micro_batch=4)) == 1
    assert micro_batch(32, Machine(micro_batch=8), rows_each=2) == 4
    assert micro_batch(32, Machine(micro_batch=1), rows_each=2) == 1


def test_pad_rows_rounds_up_to_sixteen() -> None:
    padded = pad_rows([[1, 2, 3], [4] * 17], 9)
    assert padded.shape == (2, 32)
    assert padded[0].tolist() == [1, 2, 3] + [9] * 29


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


def test_long_rows_are_named_and_never_cut(tiny_model: Path) -> None:
    examples = [render_row(Renderer.from_pretrained(tiny_model), row) for row in make_rows(9)]
    longest = max(len(example["input_ids"]) for example in examples)
    refuse_long(examples, longest)
    with pytest.raises(UserError, match=r"longer than 10 tokens: \w{16} \(\d+\), .* and 6 more; raise max_length"):
        refuse_long(examples, 10)


def test_logprobs_equal_log_softmax_of_single_rows(tiny_model: Path) -> None:
    """A padded batch gives what each row gives alone, taken from the full logits."""
    loaded = load_model(tiny_model, Machine(device="cpu", threads=1))
    pairs = [render_pair(loaded.renderer, pair) for pair in make_pairs(5)]
    batch = PairCollator(loaded.renderer.pad_id, shared=False)(pairs)
    with torch.no_grad():
        found = token_logprobs(loaded.model, model_inputs(loaded.model, batch), batch["mask"] > 0)
        rows = [(p[f"{side}_ids"], p[f"{side}_mask"]) for p in pairs for side in ("chosen", "rejected")]
        for i, (ids, mask) in enumerate(rows):
            logits = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            alone = [float(logits[t - 1, ids[t]]) if mask[t] else 0.0 for t in range(len(ids))]
            torch.testing.assert_close(found[i, : len(ids)], torch.tensor(alone), atol=1e-5, rtol=0)
            assert not found[i, len(ids) :].any()


def test_shared_prompts_give_the_logprobs_and_gradients_of_separate_rows(tiny_model: Path) -> None:
    """Each prompt is run once for both answers; prompts of different lengths stand in one batch."""
    loaded = load_model(tiny_model, Machine(device="cpu", threads=1))
    pairs = [render_pair(loaded.renderer, pair) for pair in make_pairs(7)]
    results = []
    for shared in (True, False):
        batch = PairCollator(loaded.renderer.pad_id, shared)(pairs)
        loaded.model.zero_grad()
        found = token_logprobs(loaded.model, model_inputs(loaded.model, batch), batch["mask"] > 0)
        found.sum().backward()
        gradients = [parameter.grad.clone() for parameter in loaded.model.parameters()]
        results.append((found[batch["mask"] > 0].tolist(), gradients, batch["input_ids"].shape[1]))
    assert results[0][2] < results[1][2]
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for ours, separate in zip(results[0][1], results[1][1], strict=True):
        assert float((ours - separate).norm() / separate.norm()) < 1e-5
