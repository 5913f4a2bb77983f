"""Launched trainings in real processes: the same weights as one process, the traps of the launchers, stop and go on."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pyarrow import feather
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from posttrain.artifacts import CHECKPOINTS, read_manifest
from posttrain.data.rows import Pair, Row
from posttrain.data.tables import write_table
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Launch, Machine
from posttrain.rounds.launch import Launched, Launcher, find_launcher, shipped_launchers
from posttrain.rounds.worker import Order, run_stage
from posttrain.train import reference
from posttrain.train.guard import check_launch

MACHINE = Machine(device="cpu", threads=1, devices=2)
CONFIG = {"learning_rate": 2e-3, "epochs": 2, "batch_size": 4, "max_grad_norm": 0.5, "warmup_ratio": 0.0}
"""Gradients are clipped, and the last batch holds fewer rows than there are processes."""
SAY = "the cat sat on a mat and looked at birds that sang".split()


@dataclass(frozen=True)
class Apart(Launcher):
    """A launcher whose processes find DeepSpeed in a folder of its own, if one is given (`pip install --target`): every
    process that finds it imports it, which takes seconds."""

    def environment(self) -> dict[str, str]:
        found, folder = super().environment(), os.environ.get("POSTTRAIN_DEEPSPEED")
        for name, first in (("PYTHONPATH", folder), ("PATH", f"{folder}/bin")):
            found |= {name: os.pathsep.join([first, found[name]])} if folder and first else {}
        return found


@pytest.fixture
def deepspeed() -> Callable[..., Launcher]:
    """`find_launcher`, for processes that need DeepSpeed."""
    if not os.environ.get("POSTTRAIN_DEEPSPEED") and importlib.util.find_spec("deepspeed") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)('needs pip install "posttrain[deepspeed]"')
    return lambda *names: Apart(**vars(find_launcher(*names)))


def answer(number: int, words: int) -> dict[str, str]:
    return {"role": "assistant", "content": " ".join(SAY[(number + i) % len(SAY)] for i in range(words))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    asked = [({"role": "user", "content": f"Say {n}: {' '.join(SAY[: 1 + n % 7])}"},) for n in range(9)]
    rows = [Row((*prompt, answer(n, 1 + n % 5)), capability="general") for n, prompt in enumerate(asked)]
    pairs = [
        Pair(prompt, answer(n, 3 + n % 3), answer(n + 5, 2), capability=("code", "general")[n % 2], prompt_id=str(n))
        for n, prompt in enumerate(asked)
    ]
    for name, items in (("rows", rows), ("pairs", pairs)):
        (folder / name).mkdir()
        write_table(folder / name, name, items)
    return {"sft": folder / "rows", "dpo": folder / "pairs"}


def order(kind: str, part: Path, data: dict[str, Path], model: Path, launch: Launch, **config: Any) -> Order:
    inputs = {"init": {"artifact": str(model)}}
    inputs |= {"data": [{"artifact": str(data["sft"])}]} if kind == "sft" else {}
    inputs |= {"pairs": [{"artifact": str(data["dpo"])}]} if kind != "sft" else {}
    inputs |= {"reference": inputs["init"]} if kind == "dpo" else {}
    config = config if kind == "reference" else CONFIG | config
    return Order(
        id=f"round-1/{kind}", module=f"posttrain.train.{kind}", kind="checkpoint", key="0" * 16, name=kind, round=1,
        seed=17, part=str(part), config=config, machine=MACHINE.model_dump(), inputs=inputs, parents={},
        source_hash="", loads_model=True, launch=asdict(launch),
    )  # fmt: skip


def launched(launcher: Launcher, work: Order, hear: Callable[[Any], None] = lambda event: None) -> dict[str, Any]:
    part = Path(work.part)
    process = Launched(launcher, work, part.with_suffix(".json"), part.with_suffix(".log"))
    try:
        return process.perform(work, hear)
    except Interrupted:
        process.stop(lambda event: None)
        raise
    finally:
        process.close()


def alone(kind: str, part: Path, data: dict[str, Path], model: Path, **config: Any) -> Path:
    """The stage's folder, made by this process."""
    part.mkdir()
    run_stage(order(kind, part, data, model, Launch(), **config), part, lambda event: None, lambda: False)
    return part


def inline(kind: str, part: Path, data: dict[str, Path], model: Path, **config: Any) -> dict[str, torch.Tensor]:
    return load_file(alone(kind, part, data, model, **config) / "model.safetensors")


def assert_same(part: Path, expected: dict[str, torch.Tensor]) -> None:
    """Equal but for rounding. Where a weight's first gradient is as small as Adam's epsilon (1e-8), rounding sets its
    step, with other micro-batches of one process too: one weight in 10,000 may be so, by a twentieth of a step."""
    found = load_file(part / "model.safetensors")
    assert found.keys() == expected.keys()
    unsteady = 0
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4)
        unsteady += int((~torch.isclose(found[name], tensor, atol=2e-5, rtol=1e-4)).sum())
    assert unsteady <= sum(tensor.numel() for tensor in expected.values()) / 10_000


def stop_at_two(event: dict[str, Any]) -> None:
    """Hears a stage, and stops it after its second step."""
    if event.get("done") == 2:
        raise Interrupted("enough")


def test_two_processes_stopped_and_gone_on_end_as_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    launcher, part = find_launcher("cpu_2proc", MACHINE), tmp_path / "two"
    work = order("sft", part, data, tiny_model, launcher.launch)
    with pytest.raises(Interrupted):
        launched(launcher, work, stop_at_two)
    kept = [path.name for path in (part / CHECKPOINTS).iterdir()]
    assert len(kept) == 1
    assert "step-00000003" <= kept[0] <= "step-00000006"
    assert not (part / "model.safetensors").exists()
    told: list[dict[str, Any]] = []
    launched(launcher, work, told.append)
    steps = [event["done"] for event in told if event.get("unit") == "steps"]
    assert steps == list(range(int(kept[0][-8:]) + 1, 7))
    manifest = read_manifest(part)
    assert manifest is not None and manifest.summary["steps"] == 6
    assert CHECKPOINTS not in {Path(name).parts[0] for name in manifest.files}
    assert_same(part, inline("sft", tmp_path / "one", data, tiny_model))


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_two_processes_of_dpo_end_as_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], loss: str
) -> None:
    """One process has no pair in the last step of an epoch; what they log is of the pairs of both."""
    launcher, part = find_launcher("cpu_2proc", MACHINE), tmp_path / "two"
    launched(launcher, order("dpo", part, data, tiny_model, launcher.launch, loss=loss))
    assert_same(part, inline("dpo", tmp_path / "one", data, tiny_model, loss=loss))
    log, alone = (
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert len(log) == len(alone) == 6
    for one, other in zip(log, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


def test_two_processes_stopped_and_gone_on_find_the_logprobs_of_one(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    """Nine prompts in chunks of two: each process takes every other chunk, and the last is one alone."""
    launcher, part = find_launcher("cpu_2proc", MACHINE), tmp_path / "two"
    work = order("reference", part, data, tiny_model, launcher.launch, chunk=2)
    with pytest.raises(Interrupted):
        launched(launcher, work, stop_at_two)
    kept = (part / "reference.journal.jsonl").read_bytes().count(b"\n")
    assert kept in (2, 4)  # both processes' chunks or none; the signal comes in the first or the second round
    told: list[dict[str, Any]] = []
    launched(launcher, work, told.append)
    assert [event["done"] for event in told if event.get("unit") == "reference prompts"] == [4, 6, 8, 9][-(5 - kept) :]
    whole = alone("reference", tmp_path / "one", data, tiny_model, chunk=2)
    assert (part / reference.FILE).read_bytes() == (whole / reference.FILE).read_bytes()


SPLIT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from accelerate import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from posttrain.chat import Renderer
from posttrain.machine import Launch, Machine
from posttrain.stages import Job
from posttrain.train.split import open_part
from posttrain.train.reference import Held, load, sums_of
from posttrain.train.batches import lists_of
from posttrain.train.reference_spec import ReferenceConfig

model, pairs, folder = map(Path, sys.argv[1:])
state = PartialState(cpu=True)
machine, launch = Machine(device="cpu", threads=1), Launch("fsdp2", 2, "fsdp2", rank=state.process_index)
folder = folder / str(launch.rank)
folder.mkdir()
inputs = {"init": model, "pairs": [pairs]}
job = Job(ReferenceConfig(), inputs, folder, 17, name="reference", machine=machine, launch=launch)
plugin = FullyShardedDataParallelPlugin(
    fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=True
)
cpu = SimpleNamespace(
    state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", device=state.device,
    is_main_process=state.is_main_process,
)
lists = lists_of([example for _, example in load(job, Renderer.from_pretrained(model))])
loaded = open_part(job, cpu, model)
held = sum(part.to_local().numel() for part in loaded.model.parameters())
own = lists[:7] if launch.rank else lists[7:]  # one process has more passes to make than the other
found = sums_of(Held(loaded, 100, launch), own)
(folder / "found").write_text(json.dumps({"held": held, "of": [row["logprobs"] for row in found]}))
state.destroy_process_group()
"""
"""FSDP 2 splits weights on a CPU when it is called itself; accelerate's launcher would not."""
FSDP_ON_CPU = """
from accelerate.state import DistributedType, PartialState

begin = PartialState.__init__

def begin_as_gpus(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

PartialState.__init__ = begin_as_gpus
from trl.trainer import dpo_trainer
assert dpo_trainer.create_model_from_path
dpo_trainer.create_model_from_path = None  # with which TRL would load a reference
from posttrain.rounds import launched
launched.main()
"""
"""A launched process in which accelerate takes the processes of a CPU for those of GPUs, and so splits weights."""


@dataclass(frozen=True)
class Patched(Launcher):
    """A launcher of FSDP 2 on a CPU."""

    def command(self, order: Path | str, rank: int = 0) -> list[str]:
        script = Path(order).with_suffix(".py")
        script.write_text(FSDP_ON_CPU)
        command = super().command(order, rank)
        assert command[-3:-1] == ["-m", "posttrain.rounds.launched"]
        return [*command[:-3], str(script), str(order)]


def fsdp2() -> Patched:
    found = find_launcher("fsdp2", MACHINE.model_copy(update={"device": "cuda"}))
    return Patched(found.values, found.launch, MACHINE, found.flags)


@pytest.mark.slow
def test_split_weights_stopped_and_gone_on_end_as_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    launcher, part = fsdp2(), tmp_path / "two"
    work = order("sft", part, data, tiny_model, launcher.launch)
    with pytest.raises(Interrupted):
        launched(launcher, work, stop_at_two)
    [kept] = (part / CHECKPOINTS).iterdir()
    assert {"optimizer_0", "pytorch_model_fsdp_0"} <= {path.name for path in kept.iterdir() if path.is_dir()}
    told: list[dict[str, Any]] = []
    launched(launcher, work, told.append)
    steps = [event["done"] for event in told if event.get("unit") == "steps"]
    assert steps == list(range(int(kept.name[-8:]) + 1, 7))
    assert_same(part, inline("sft", tmp_path / "one", data, tiny_model))


@pytest.mark.slow
def test_dpo_under_fsdp2_ends_as_one_process_and_loads_no_reference(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    """The log-probabilities are computed by both processes, each with a part of the reference, before TRL begins."""
    launcher, part = fsdp2(), tmp_path / "two"
    launched(launcher, order("dpo", part, data, tiny_model, launcher.launch, chunk=4))
    found, expected = load_file(part / "model.safetensors"), inline("dpo", tmp_path / "one", data, tiny_model)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3)


def test_a_reference_in_parts_finds_the_logprobs_of_the_whole(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    python = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    (tmp_path / "split.py").write_text(SPLIT)
    given = [str(tmp_path / "split.py"), str(tiny_model), str(data["dpo"]), str(tmp_path)]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    out = subprocess.run([*python, *given], env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-3000:]
    last, first = (json.loads((tmp_path / str(rank) / "found").read_text()) for rank in range(2))
    whole = alone("reference", tmp_path / "one", data, tiny_model)
    rows = feather.read_table(whole / reference.FILE).to_pylist()
    found = [value for own in (*first["of"], *last["of"]) for value in own]
    assert found == [pytest.approx([row["text"], row["format"]], abs=1e-4) for row in rows]
    parameters = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_pretrained(tiny_model).parameters())
    assert first["held"] + last["held"] == parameters
    assert abs(first["held"] - last["held"]) < parameters / 10


@pytest.mark.slow
def test_deepspeed_splits_the_reference_too(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], deepspeed: Callable[..., Launcher]
) -> None:
    launcher, part = deepspeed("zero3", MACHINE), tmp_path / "two"
    launched(launcher, order("reference", part, data, tiny_model, launcher.launch, chunk=2))
    whole = alone("reference", tmp_path / "one", data, tiny_model, chunk=2)
    one, other = (feather.read_table(folder / reference.FILE).to_pydict() for folder in (part, whole))
    assert one["id"] == other["id"]
    for name in ("text", "format"):
        assert one[name] == pytest.approx(other[name], abs=1e-4)


def test_accelerates_cpu_flag_is_one_process_and_refused(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path]
) -> None:
    values = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "use_cpu": True}
    launch = Launch("cpu_2proc", 2, "ddp")
    launcher = Launcher(values, launch, MACHINE, ("--cpu", "--num_processes", "2", "--num_machines", "1"))
    told = "is to train with 2 processes and ddp sharding, but here is 1 process and none sharding"
    with pytest.raises(UserError, match=told):
        launched(launcher, order("sft", tmp_path / "part", data, tiny_model, launch))
    assert not (tmp_path / "part" / "model.safetensors").exists()


def test_fsdp_on_the_cpu_is_plain_ddp_and_refused(tmp_path: Path, tiny_model: Path, data: dict[str, Path]) -> None:
    launch = Launch("fsdp2", 2, "fsdp2")
    flags = ("--num_processes", "2", "--num_machines", "1")
    launcher = Launcher(yaml.safe_load(shipped_launchers()["fsdp2"].read_text()), launch, MACHINE, flags)
    told = "is to train with 2 processes and fsdp2 sharding, but here is 2 processes and ddp sharding"
    with pytest.raises(UserError, match=told):
        launched(launcher, order("sft", tmp_path / "part", data, tiny_model, launch))


def test_processes_that_would_train_each_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun without `use_cpu`: accelerate does not see the others, and both would write one folder."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    check_launch(Launch(), accelerator)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started, and each would train alone, as one of 1"):
        check_launch(Launch("ddp", 2, "ddp"), accelerator)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_deepspeed_ends_as_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], deepspeed: Callable[..., Launcher], name: str, kind: str
) -> None:
    launcher, part = deepspeed(name, MACHINE), tmp_path / "two"
    launched(launcher, order(kind, part, data, tiny_model, launcher.launch))
    assert_same(part, inline(kind, tmp_path / "one", data, tiny_model))


@pytest.mark.slow
def test_adapters_under_zero2_are_merged_as_in_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], deepspeed: Callable[..., Launcher]
) -> None:
    launcher, part, lora = deepspeed("zero2", MACHINE), tmp_path / "two", {"lora": {"rank": 4}}
    launched(launcher, order("sft", part, data, tiny_model, launcher.launch, **lora))
    assert_same(part, inline("sft", tmp_path / "one", data, tiny_model, **lora))


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["zero2", "zero3"])
def test_rows_shared_by_two_processes_end_as_one_process(
    tmp_path: Path, tiny_model: Path, data: dict[str, Path], deepspeed: Callable[..., Launcher], sharing: str
) -> None:
    """Ulysses: each of the two has half of the tokens of every row, and in attention half of the heads."""
    values = yaml.safe_load(shipped_launchers()["zero3_ulysses"].read_text())
    values["parallelism_config"]["parallelism_config_sp_size"] = 2
    values["deepspeed_config"]["deepspeed_config_file"] = str(shipped_launchers()[sharing].with_suffix(".json"))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    launcher, part = deepspeed("own.yaml", MACHINE, [tmp_path]), tmp_path / "two"
    assert launcher.launch == Launch("own.yaml", 2, sharing, sequence=2)
    launched(launcher, order("sft", part, data, tiny_model, launcher.launch))
    assert_same(part, inline("sft", tmp_path / "one", data, tiny_model))
    steps, alone = (
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    for one, other in zip(steps, alone, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["num_input_tokens_seen"] == other["num_input_tokens_seen"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("sequence", [1, 2])
def test_fsdp2_ends_as_one_process(tmp_path: Path, tiny_model: Path, data: dict[str, Path], sequence: int) -> None:
    """Weights split over two devices, and rows dealt to them or, by ring attention, shared."""
    values = yaml.safe_load(shipped_launchers()["fsdp2_context"].read_text())
    values["parallelism_config"]["parallelism_config_cp_size"] = sequence
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    launcher = find_launcher("own.yaml", MACHINE.model_copy(update={"device": "cuda"}), [tmp_path])
    part = tmp_path / "two"
    launched(launcher, order("sft", part, data, tiny_model, launcher.launch))
    inline("sft", tmp_path / "one", data, tiny_model)
    steps, alone = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert steps == pytest.approx(alone, rel=3e-2)  # bfloat16 against float32
