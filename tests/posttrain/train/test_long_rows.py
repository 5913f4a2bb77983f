"""Long rows within little memory: logits in pieces, no mask of T × T, layers recomputed, and advice when it is full."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.engines.loading import load_model
from posttrain.errors import UserError
from posttrain.machine import Launch, Machine
from posttrain.train import batches, head, sft
from posttrain.train.batches import IGNORED, GlobalBatches, RowCollator, render_row, token_logprobs
from posttrain.train.sequence import piece_of
from posttrain.train.settings import TrainingConfig
from posttrain.train.sft_spec import SftConfig
from posttrain.train.trainer import memory_advice

from .helpers import folder_with, make_job, make_rows

MACHINE = Machine(device="cpu", threads=1)
TRAIN_ONE = """
import json, resource, sys
from pathlib import Path
from posttrain.errors import StageFailed
from posttrain.machine import Launch, Machine
from posttrain.stages import Job
from posttrain.train import sft, trainer
from posttrain.train.sft_spec import SftConfig

init, folder, length, more, room = *map(Path, sys.argv[1:3]), *map(json.loads, sys.argv[3:])
row = {"id": "long", "input_ids": [10 + i % 400 for i in range(length)]}
row["labels"] = [-100] * 64 + row["input_ids"][64:]
job = Job(SftConfig(batch_size=1, **more), {}, folder, 1, name="sft", machine=Machine(device="cpu", threads=1))
loaded = trainer.load_policy(job, init)
built = sft.row_trainer(job, loaded, [row])
if room:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, -1))
try:
    lines = trainer.train(job, built, [length])
except StageFailed as error:
    print(json.dumps({"said": str(error)}))
else:
    print(json.dumps({"loss": lines[0]["loss"], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.fixture(scope="module")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer Llama of 8,192 tokens and 131,072 positions: the logits of 16K tokens alone take 512 MiB."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "wide"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8_192, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=131_072, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def train_one(init: Path, folder: Path, length: int, room: int = 0, **more: Any) -> dict[str, Any]:
    """One step on one row in a process of its own, with `room` bytes left to it where that is not 0."""
    folder.mkdir()
    quiet = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    out = subprocess.run(
        [sys.executable, "-c", TRAIN_ONE, str(init), str(folder), str(length), json.dumps(more), str(room)],
        env=os.environ | quiet, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found


def test_a_row_of_16k_tokens_trains_within_the_memory_of_a_laptop(tmp_path: Path, wide_model: Path) -> None:
    """6 GiB is what was asked for. Whole logits with their softmax and gradients (1.5 GiB), or a mask of T × T
    (1 GiB in float32), would show in a limit of 1.25."""
    found = train_one(wide_model, tmp_path / "job", 16_380, activations="recompute")
    assert found["peak"] < 1.25 * 2**30
    assert 1 < found["loss"] < 20


def test_full_memory_is_one_sentence_with_what_to_do(tmp_path: Path, wide_model: Path) -> None:
    said = train_one(wide_model, tmp_path / "job", 16_380, room=200 << 20)["said"]
    assert said == (
        "sft: the device's memory is full; halve machine.train_tokens (16,384) to 8,192, and so what a pass needs"
    )


def test_the_advice_is_what_still_helps(tmp_path: Path) -> None:
    def advice(activations: str, tokens: int, cuda: bool) -> str:
        machine = MACHINE.model_copy(update={"train_tokens": tokens})
        return memory_advice(
            make_job(tmp_path, TrainingConfig(activations=activations), {}, machine=machine), cuda, 4_096
        )

    assert advice("auto", 8_192, cuda=True).startswith("halve machine.train_tokens (8,192) to 4,096")
    assert advice("auto", 4_096, cuda=False).startswith("give activations: recompute")
    assert advice("auto", 4_096, cuda=True).startswith("give activations: offload")
    for activations, cuda in (("recompute", False), ("offload", True)):
        assert advice(activations, 1_024, cuda).startswith("one item of 4,096 tokens fills it: halve max_length")


def test_logits_in_pieces_give_the_same_logprobs_and_gradients(tiny_model: Path, monkeypatch: Any) -> None:
    model = load_model(tiny_model, MACHINE, dtype=torch.float32).model
    ids = torch.arange(10, 70).reshape(2, 30)
    wanted = (ids % 3 > 0).long()
    assert int(wanted[:, 1:].sum()) == 38
    seen: list[int] = []
    piece = head._piece
    monkeypatch.setattr(head, "_piece", lambda *args: seen.append(len(args[1])) or piece(*args))
    results = []
    for size in (head.PIECE, 512 * 16):
        monkeypatch.setattr(head, "PIECE", size)
        model.zero_grad()
        found = token_logprobs(model, {"input_ids": ids}, wanted)
        found.sum().backward()
        results.append((found.detach(), [parameter.grad.clone() for parameter in model.parameters()]))
    assert seen == [16, 16, 6, 6, 16, 16]  # forward, and anew in backward
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-6)
    assert (results[1][0] != 0).tolist() == [[bool(w) and i > 0 for i, w in enumerate(row)] for row in wanted.tolist()]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert "forward" not in vars(model.get_output_embeddings())


def test_padding_of_long_rows_needs_no_mask(tmp_path: Path, tiny_model: Path, monkeypatch: Any) -> None:
    loaded = load_model(tiny_model, MACHINE, dtype=torch.float32)
    examples = [render_row(loaded.renderer, row) for row in make_rows(5)]
    trainer = sft.row_trainer(make_job(tmp_path / "a", SftConfig(batch_size=5), {}, machine=MACHINE), loaded, examples)
    results = []
    for longest in (batches.MASKED, 0):
        monkeypatch.setattr(batches, "MASKED", longest)
        [part] = RowCollator(examples, loaded.renderer.pad_id, 16_384)([{"item": i} for i in range(5)])["parts"]
        assert ("attention_mask" in part) == bool(longest)
        assert IGNORED in part["labels"]
        loaded.model.zero_grad()
        loss = trainer.compute_loss(loaded.model, part, num_items_in_batch=torch.tensor(trainer.items(part)))
        loss.backward()
        results.append((loss.item(), [parameter.grad.clone() for parameter in loaded.model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_recomputed_layers_train_the_same_weights(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "data", "rows", make_rows(9))
    found = []
    for activations in ("keep", "recompute"):
        config = SftConfig(learning_rate=2e-3, batch_size=3, activations=activations)
        job = make_job(
            tmp_path / activations, config, {"data": [data], "init": tiny_model}, machine=MACHINE, name="sft"
        )
        sft.run(job)
        found.append(load_file(job.folder / "model.safetensors"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-6, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offloaded_activations_train_as_recomputed_ones(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "data", "rows", make_rows(9))
    losses = []
    for activations in ("recompute", "offload"):
        config = SftConfig(learning_rate=2e-3, batch_size=3, activations=activations)
        inputs = {"data": [data], "init": tiny_model}
        job = make_job(tmp_path / activations, config, inputs, machine=Machine(device="cuda"), name="sft")
        sft.run(job)
        losses.append(job.summary["loss_last"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_what_needs_cuda_is_refused_without(tmp_path: Path, tiny_model: Path) -> None:
    data = folder_with(tmp_path / "data", "rows", make_rows(2))
    for config, told in (
        ({"activations": "offload"}, "activations: offload moves them from a CUDA device; on the CPU use recompute"),
        ({"attention": "flash_attention_2"}, "attention flash_attention_2 needs CUDA"),
    ):
        job = make_job(tmp_path / next(iter(config)), SftConfig(**config), {"data": [data], "init": tiny_model},
                       machine=MACHINE, name="sft")  # fmt: skip
        with pytest.raises(UserError, match=told):
            sft.run(job)


def test_the_processes_of_a_row_read_the_same_rows() -> None:
    """Seven rows in batches of four for two pairs of processes: each process's share is what its pair's other has."""
    whole = GlobalBatches([7, 6, 5, 4, 3, 2, 1], 4, seed=1, processes=2)
    shared = GlobalBatches([7, 6, 5, 4, 3, 2, 1], 4, seed=1, processes=2, copies=2)
    assert (len(whole), len(shared)) == (8, 16)
    dealt = [list(shared)[start : start + 2] for start in range(0, 16, 2)]
    assert dealt[0::2] == dealt[1::2] == [list(whole)[start : start + 2] for start in range(0, 8, 2)]


def test_a_piece_keeps_places_and_the_label_after_its_last_token() -> None:
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[IGNORED, 6, 7, 8]])}
    first, last = (piece_of(inputs, Launch("own", 4, "zero3", sequence=2), process) for process in (2, 3))
    assert [value.tolist() for value in (*first[0].values(), first[1])] == [[[5, 6]], [[0, 1]], [[6, 7]]]
    assert [value.tolist() for value in (*last[0].values(), last[1])] == [[[7, 8]], [[2, 3]], [[8, IGNORED]]]
    ring = {"input_ids": inputs["input_ids"], "position_ids": inputs["labels"], "shift_labels": inputs["labels"]}
    assert piece_of(ring, Launch("own", 2, "fsdp2", sequence=2), 1)[1] is ring["shift_labels"]
