"""Packed rows: bins that waste little, and the loss and gradients of rows that stand alone."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from posttrain.engines.loading import load_model
from posttrain.machine import Machine
from posttrain.train import sft
from posttrain.train.batches import IGNORED, RowCollator, best_fit, pack, render_row
from posttrain.train.sft_spec import SftConfig
from posttrain.train.trainer import load_policy

from .helpers import make_job, make_rows

MACHINE = Machine(device="cpu", threads=1)


def test_best_fit_by_hand() -> None:
    """7 opens a bin; 6 and 5 do not fit and open two; 4 goes to 6 (rest 0, not 1), 3 to 7, 2 to 5, 2 to that too."""
    assert best_fit([5, 3, 7, 2, 6, 4, 2], 10) == [[2, 1], [4, 5], [0, 3, 6]]
    assert best_fit([12, 3], 10) == [[0], [1]]
    assert best_fit([], 10) == []


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 90))
def test_each_item_has_one_bin_and_no_two_bins_fit_into_one(lengths: list[int], capacity: int) -> None:
    bins = best_fit(lengths, capacity)
    assert sorted(item for own in bins for item in own) == list(range(len(lengths)))
    filled = sorted(sum(lengths[item] for item in own) for own in bins)
    assert all(total <= capacity for total in filled)
    assert len(filled) < 2 or filled[0] + filled[1] > capacity


def test_a_packed_sequence_by_hand() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8, 9], "labels": [IGNORED, 9]}]
    found = pack(rows, pad_id=0)
    assert found["input_ids"].tolist() == [[5, 6, 7, 8, 9, *[0] * 11]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 0, 1, *range(11)]]
    assert found["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9, *[IGNORED] * 11]]
    assert found["tokens"] == 5


@pytest.mark.parametrize("capacity", [400, 4096])
def test_packed_loss_and_gradients_are_those_of_rows_alone(tmp_path: Path, tiny_model: Path, capacity: int) -> None:
    loaded = load_model(tiny_model, MACHINE)
    examples = [render_row(loaded.renderer, row) for row in make_rows(11)]
    results = []
    for place, packing in enumerate((capacity, 0)):
        job = make_job(tmp_path / str(place), SftConfig(packing=packing, batch_size=11), {}, machine=MACHINE)
        trainer = sft.row_trainer(job, loaded, examples)
        limit = 1 if packing == 0 else MACHINE.train_tokens  # unpacked: every row alone, without padding between rows
        collator = RowCollator(examples, loaded.renderer.pad_id, limit, packing)
        parts = collator([{"item": number} for number in range(11)])["parts"]
        assert sum(int(part["tokens"]) for part in parts) == sum(len(e["input_ids"]) for e in examples)
        items = torch.tensor(sum(trainer.items(part) for part in parts))
        loaded.model.zero_grad()
        loss = sum(trainer.compute_loss(loaded.model, part, num_items_in_batch=items) for part in parts)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in loaded.model.parameters()], len(parts)))
    assert results[0][2] < results[1][2] == 11
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for packed, alone in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)


def test_a_long_row_is_packed_alone(tiny_model: Path) -> None:
    """16,384 tokens beside short ones; nothing is cut."""
    rows = [{"input_ids": [1] * n, "labels": [IGNORED] + [1] * (n - 1)} for n in (16_384, 5, 7)]
    parts = RowCollator(rows, 0, 16_384, packing=64)([{"item": i} for i in range(3)])["parts"]
    assert [int(part["tokens"]) for part in parts] == [16_384, 12]


def with_heads_of_sixteen(model: Path, folder: Path) -> Path:
    """A random model with the tokenizer of `model`: flex attention's kernel takes no narrower heads."""
    config = AutoConfig.from_pretrained(model, hidden_size=64, num_attention_heads=4, head_dim=16)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "flex_attention"])
def test_packed_rows_see_themselves_only_with_every_kernel(tmp_path: Path, tiny_model: Path, attention: str) -> None:
    """In bfloat16, against each row alone in float32 on the CPU: the loss, and where the gradients point."""
    if attention.startswith("flash"):
        pytest.importorskip("flash_attn")
    cuda, model = Machine(device="cuda", threads=1), with_heads_of_sixteen(tiny_model, tmp_path / "model")
    losses, gradients = [], []
    for machine, packing, kernel in ((MACHINE, 0, "sdpa"), (cuda, 4096, attention)):
        job = make_job(
            tmp_path / machine.device, SftConfig(packing=packing, batch_size=11, attention=kernel), {}, machine=machine
        )
        loaded = load_policy(job, model)
        sft.attend(job, loaded)
        examples = [render_row(loaded.renderer, row) for row in make_rows(11)]
        trainer = sft.row_trainer(job, loaded, examples)
        parts = RowCollator(examples, loaded.renderer.pad_id, 1 if packing == 0 else 16_384, packing)
        batch = [
            {name: value.to(loaded.device) for name, value in part.items()}
            for part in parts([{"item": number} for number in range(11)])["parts"]
        ]
        items = torch.tensor(sum(trainer.items(part) for part in batch))
        with torch.autocast("cuda", torch.bfloat16, enabled=machine is cuda):
            total = sum(trainer.compute_loss(loaded.model, part, num_items_in_batch=items) for part in batch)
        total.backward()
        losses.append(total.item())
        gradients.append(torch.cat([parameter.grad.flatten().cpu() for parameter in loaded.model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.99
