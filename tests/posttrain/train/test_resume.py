"""A training that is killed at any step goes on to the same bits, and a checkpoint that is not whole is passed over."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.artifacts import CHECKPOINTS
from posttrain.errors import Interrupted, StageFailed, UserError
from posttrain.machine import Launch, Machine
from posttrain.stages import Job
from posttrain.train import dpo, resume, sft
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.sft_spec import SftConfig
from reward import train as reward_train
from reward.train_spec import RewardConfig

from .helpers import folder_with, make_job, make_pairs, make_rows

COMMON = {"learning_rate": 2e-3, "epochs": 3, "batch_size": 8, "warmup_ratio": 0.1}
MACHINE = Machine(device="cpu", threads=1)


def stage_of(kind: str, folder: Path, data: Path, model: Path, **more: Any) -> tuple[Callable[[Job], None], Job]:
    """Three epochs of three steps, the last batch of each smaller; a checkpoint after every step unless `more` says."""
    save = {"save_steps": more.pop("save_steps", 1), **more.pop("config", {})}
    run, make, name = {
        "sft": (sft.run, SftConfig, "data"),
        "dpo": (dpo.run, DpoConfig, "pairs"),
        "reward": (reward_train.run, partial(RewardConfig, heldout_share=0.0), "preferences"),
    }[kind]
    config = make(**{**COMMON, **save})
    inputs = {name: [data], "init": model, **({"reference": model} if kind == "dpo" else {})}
    return run, make_job(folder, config, inputs, name=kind, machine=MACHINE, **more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("resume")
    return {
        "sft": folder_with(root / "rows", "rows", make_rows(19)),
        "dpo": folder_with(root / "pairs", "pairs", make_pairs(19)),
        "reward": folder_with(root / "preferences", "preferences", make_pairs(19)),
    }


def killed(run: Callable[[Job], None], job: Job, step: int) -> None:
    """Run the stage in a process of its own that gets SIGKILL when it tells of `step`."""

    def report(event: dict[str, Any]) -> None:
        if event["unit"] == "steps" and event["done"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        job.report = report
        run(job)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def result(job: Job) -> dict[str, bytes]:
    return {name: (job.folder / name).read_bytes() for name in ("model.safetensors", "training.jsonl")}


@pytest.mark.parametrize(("kind", "trials"), [("sft", 2), ("dpo", 1), ("reward", 1)])
def test_killed_at_random_steps_it_ends_with_the_same_bits(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], kind: str, trials: int
) -> None:
    run, whole = stage_of(kind, tmp_path / "whole", data[kind], tiny_model, save_steps=0)
    run(whole)
    assert not (whole.folder / CHECKPOINTS).exists()
    draw = random.Random(kind)
    for trial in range(trials):
        first, second = sorted(draw.sample(range(2, 9), 2))
        save = draw.choice([1, 2])
        run, job = stage_of(kind, tmp_path / str(trial), data[kind], tiny_model, save_steps=save)
        for step in (first, second):
            killed(run, job, step)
        told: list[dict[str, Any]] = []
        job.report = told.append
        run(job)
        steps = [event["done"] for event in told if event["unit"] == "steps"]
        # A step is told of before it is saved, so that one at least is done again.
        assert steps[0] == (second - 1) // save * save + 1
        assert result(job) == result(whole), (first, second, save)
        assert job.summary["loss_first"] == whole.summary["loss_first"]


def test_packed_rows_go_on_to_the_same_bits_too(tmp_path: Path, tiny_model: Path, data: dict[str, Path]) -> None:
    packed = {"config": {"packing": 400}}
    run, whole = stage_of("sft", tmp_path / "whole", data["sft"], tiny_model, **packed)
    run(whole)
    run, job = stage_of("sft", tmp_path / "part", data["sft"], tiny_model, **packed)
    killed(run, job, 5)
    run(job)
    assert result(job) == result(whole)


def test_asked_to_stop_it_finishes_the_step_and_keeps_it(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    told: list[dict[str, Any]] = []
    more: dict[str, Any] = {"report": told.append, "stopping": lambda: len(told) == 3, "save_steps": 0}
    run, job = stage_of("sft", tmp_path / "part", data["sft"], tiny_model, **more)
    with pytest.raises(Interrupted, match="stopped at 4 of 9 steps"):
        run(job)
    assert [path.name for path in resume.checkpoints(job.folder / CHECKPOINTS)] == ["step-00000004"]
    del told[:]
    job.stopping = lambda: False
    run(job)
    assert [event["done"] for event in told] == [5, 6, 7, 8, 9]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda at: os.truncate(at / "model.safetensors", 999), "model.safetensors has 999 bytes, not"),
    "flipped": (lambda at: flip(at / "model.safetensors"), "model.safetensors was changed after it was written"),
    "missing": (lambda at: (at / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "no record": (lambda at: (at / resume.RECORD).unlink(), "its record cannot be read"),
    "torn record": (lambda at: os.truncate(at / resume.RECORD, 40), "its record cannot be read"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, data: dict[str, Path]) -> Path:
    """The folder of a training killed in its sixth step of nine, with checkpoints of the steps 4 and 5."""
    folder = tmp_path_factory.mktemp("stopped") / "part"
    killed(*stage_of("sft", folder, data["sft"], tiny_model), 6)
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_checkpoint_is_told_of_and_the_one_before_is_taken(tmp_path: Path, stopped: Path, fault: str) -> None:
    shutil.copytree(stopped / CHECKPOINTS, tmp_path / CHECKPOINTS)
    folder, told = tmp_path / CHECKPOINTS, []
    assert [path.name for path in resume.checkpoints(folder)] == ["step-00000005", "step-00000004"]
    breaks, why = FAULTS[fault]
    breaks(folder / "step-00000005")
    found = resume.newest_whole(folder, Launch(), told.append)
    assert found == folder / "step-00000004"
    assert len(told) == 1 and "step-00000005 is not used" in told[0] and why in told[0]
    assert not (folder / "step-00000005").exists()
    flip(found / "optimizer.pt")
    assert resume.newest_whole(folder, Launch(), told.append) is None


def test_nothing_secret_and_no_pickle_of_settings_is_kept(stopped: Path) -> None:
    newest = resume.checkpoints(stopped / CHECKPOINTS)[0]
    names = {path.name for path in newest.iterdir()}
    assert "training_args.bin" not in names
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert resume.read_record(newest).files.keys() == names - {resume.RECORD}


def test_a_checkpoint_of_other_processes_is_refused_where_state_was_split(tmp_path: Path) -> None:
    writing = tmp_path / resume.SAVING
    writing.mkdir()
    (writing / "shard").write_text("half of it")
    resume.seal(writing, tmp_path, 3, Launch("zero2", 2, "zero2"))
    with pytest.raises(UserError, match="saved by 2 processes under zero2, and this is 4 under zero2"):
        resume.newest_whole(tmp_path, Launch("zero2", 4, "zero2"), print)
    assert resume.newest_whole(tmp_path, Launch("zero2", 2, "zero2"), print) == tmp_path / "step-00000003"


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    run, job = stage_of("sft", tmp_path / "part", data["sft"], tiny_model, save_steps=2)

    def report(event: dict[str, Any]) -> None:
        if event["done"] == 4:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))

    job.report = report
    pid = os.fork()
    if pid == 0:
        try:
            run(job)
        except UserError as error:
            (tmp_path / "said").write_text(str(error))
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    said = (tmp_path / "said").read_text()
    assert said.startswith("sft: the checkpoint of step 4 cannot be written (")
    assert said.endswith("it goes on from the checkpoint before")
    found = resume.newest_whole(job.folder / CHECKPOINTS, Launch(), print)
    assert found is not None and found.name == "step-00000002"


def test_a_run_that_diverges_stops_with_its_last_checkpoint(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    config = {"max_loss_ratio": 0.9, "epochs": 8, "learning_rate": 1e-9}
    run, job = stage_of("dpo", tmp_path / "part", data["dpo"], tiny_model, save_steps=4, config=config)
    with pytest.raises(StageFailed, match=r"dpo, step \d+ of 24: the loss diverges, its median over 10 steps is"):
        run(job)
    assert resume.checkpoints(job.folder / CHECKPOINTS)
    assert json.loads((job.folder / "training.jsonl").read_text().splitlines()[-1])["step"] >= 20


def test_a_loss_that_is_no_number_stops_and_leaves_the_checkpoints_before(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    """The rate is 0 in the first of three warm-up steps, and far too high in the second."""
    config = {"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_ratio": 0.34}
    run, job = stage_of("sft", tmp_path / "part", data["sft"], tiny_model, config=config)
    with pytest.raises(StageFailed, match=r"sft, step 3 of 9: (loss|grad_norm) became (nan|inf); lower learning_rate"):
        run(job)
    kept = resume.checkpoints(job.folder / CHECKPOINTS)
    assert [path.name for path in kept] == ["step-00000002", "step-00000001"]
    assert all(resume.fault(path) == "" for path in kept)
    first = load_file(kept[-1] / "model.safetensors")
    assert all(torch.equal(first[name], tensor) for name, tensor in load_file(tiny_model / "model.safetensors").items())
    assert not (job.folder / "model.safetensors").exists()
