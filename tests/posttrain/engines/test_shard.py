"""A model that accelerate has split answers and scores as the whole one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from pydantic import ValidationError

from posttrain.engines import Request, Sampling
from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import load_scorer, rewards
from posttrain.engines.transformers import TransformersEngine
from posttrain.machine import Machine

MACHINE = Machine(device="cpu", threads=1)
REQUESTS = [Request(f"r{i}", ({"role": "user", "content": "a cat? " * (i + 1)},), seed=i) for i in range(4)]
SAMPLING = Sampling(3, 1.0, 1.0, 12)
LISTS = [AnswerList([5, 6, 7] * (i + 2), [[8, 9], [10, 11, 12], [13]]) for i in range(3)]


def answers(loaded: Loaded) -> list[tuple[str, int, tuple[int, ...], float | None]]:
    engine = TransformersEngine(loaded, MACHINE)
    found = [completion for batch in engine.generate(REQUESTS, SAMPLING) for completion in batch]
    return sorted((one.request_id, one.index, one.ids, one.logprob) for one in found)


def hooked(loaded: Loaded) -> Loaded:
    """With accelerate's hooks on every block, as a model split over devices has them."""
    blocks = {name: torch.device("cpu") for name, _ in loaded.model.named_modules() if name.count(".") <= 2}
    attach_align_device_hook_on_blocks(loaded.model, execution_device=blocks, skip_keys="past_key_values")
    return loaded


def test_blocks_that_move_their_inputs_answer_and_score_the_same(tiny_model: Path, tiny_reward_model: Path) -> None:
    assert answers(hooked(load_model(tiny_model, MACHINE))) == answers(load_model(tiny_model, MACHINE))
    for share in (True, False):
        split, whole = hooked(load_scorer(tiny_reward_model, MACHINE)), load_scorer(tiny_reward_model, MACHINE)
        assert rewards(split, LISTS, 1000, share) == rewards(whole, LISTS, 1000, share)


def test_on_a_cpu_there_is_nothing_to_split(tiny_model: Path) -> None:
    loaded = load_model(tiny_model, MACHINE.model_copy(update={"shard": True}))
    assert loaded.device.type == "cpu"
    assert answers(loaded) == answers(load_model(tiny_model, MACHINE))


def test_all_devices_for_one_process_and_one_for_each_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="shard gives one process all devices"):
        Machine(shard=True, workers=2)
    assert Machine(shard=True, threads=2).alone() == Machine(threads=2)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_a_model_over_two_devices_answers_and_scores_as_on_one(tiny_model: Path, tiny_reward_model: Path) -> None:
    one, many = Machine(device="cuda:0"), Machine(device="cuda", shard=True)
    exact: dict[str, Any] = {"dtype": torch.float32}
    split = load_model(tiny_model, many, **exact)
    assert len(set(split.model.hf_device_map.values())) > 1
    assert [row[:3] for row in answers(split)] == [row[:3] for row in answers(load_model(tiny_model, one, **exact))]
    for found, wanted in zip(
        rewards(load_model(tiny_reward_model, many, "reward", **exact), LISTS, 1000),
        rewards(load_model(tiny_reward_model, one, "reward", **exact), LISTS, 1000), strict=True,
    ):  # fmt: skip
        assert found == pytest.approx(wanted, abs=1e-4)
