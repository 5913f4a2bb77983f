"""What a launcher is to bring about, read from its file, and what it cannot go with, told by the plan."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import UserError
from posttrain.machine import INLINE, Launch, Machine
from posttrain.rounds.launch import check_launcher, find_launcher, shipped_launchers
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import shipped_recipes
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.reference_spec import ReferenceConfig
from posttrain.train.settings import LoraConfig
from posttrain.train.sft_spec import SftConfig

GPUS = Machine(device="cuda", devices=16)


def own(folder: Path, name: str, **changed: Any) -> str:
    """A copy of a shipped config with other values, beside DeepSpeed's own files."""
    for path in shipped_launchers()[name].parent.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    values = yaml.safe_load(shipped_launchers()[name].read_text()) | changed
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    return "own.yaml"


def test_every_shipped_launcher_says_what_it_does() -> None:
    found = {
        name: find_launcher(name, Machine(device="cpu", devices=16) if "zero" in name else GPUS).launch
        for name in shipped_launchers()
    }
    assert {name: (launch.processes, launch.sharding, launch.sequence) for name, launch in found.items()} == {
        "cpu_2proc": (2, "ddp", 1), "one_gpu": (1, "none", 1), "ddp": (16, "ddp", 1), "ddp_multinode": (16, "ddp", 1),
        "fsdp2": (16, "fsdp2", 1), "fsdp2_multinode": (16, "fsdp2", 1), "fsdp2_context": (16, "fsdp2", 8),
        "zero2": (16, "zero2", 1), "zero3": (16, "zero3", 1), "zero3_multinode": (16, "zero3", 1),
        "zero3_offload": (16, "zero3", 1), "zero3_ulysses": (16, "zero3", 8),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["fsdp2_context", "zero3_ulysses"])
def test_rows_are_shared_by_eight_and_dealt_to_the_groups(name: str) -> None:
    launcher = find_launcher(name, GPUS)
    assert launcher.values["parallelism_config"]["parallelism_config_dp_shard_size"] == 2
    assert launcher.launch.groups == 2
    check_launcher(SftConfig(launch=name, batch_size=6), GPUS, [])
    with pytest.raises(UserError, match=f"batch_size 7 cannot be dealt to the 2 processes of launch {name}"):
        check_launcher(SftConfig(launch=name, batch_size=7), GPUS, [])
    with pytest.raises(UserError, match=r"8 processes share a row, and machine.devices is 12; make it a multiple of 8"):
        check_launcher(SftConfig(launch=name), GPUS.model_copy(update={"devices": 12}), [])


@pytest.mark.parametrize("name", ["fsdp2_context", "zero3_ulysses"])
def test_what_cannot_go_with_shared_rows_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"packing cannot go with launch {name}: .* leave packing out"):
        check_launcher(SftConfig(launch=name, packing=8192), GPUS, [])
    with pytest.raises(UserError, match=f"launch {name} shares rows in attention sdpa only"):
        check_launcher(SftConfig(launch=name, attention="flash_attention_2"), GPUS, [])
    with pytest.raises(UserError, match=f"launch {name} lets processes share a row, which sft alone can"):
        check_launcher(DpoConfig(launch=name), GPUS, [])


def sizes(**named: int) -> dict[str, int]:
    return {f"parallelism_config_{name}": size for name, size in named.items()}


@pytest.mark.parametrize(
    ("base", "named", "told"),
    [
        ("fsdp2", sizes(cp_size=3), "parallelism_config_cp_size is 3 and has to divide 8"),
        ("fsdp2", sizes(cp_size=16), "parallelism_config_cp_size is 16 and has to divide 8"),
        ("fsdp2", sizes(sp_size=2), "parallelism_config_sp_size needs distributed_type DEEPSPEED, and it is FSDP"),
        ("zero3", sizes(cp_size=2), "parallelism_config_cp_size needs distributed_type FSDP, and it is DEEPSPEED"),
        ("ddp", sizes(sp_size=2), "parallelism_config_sp_size needs distributed_type DEEPSPEED, and it is MULTI_GPU"),
        ("fsdp2", sizes(cp_size=2, tp_size=2), "may name parallelism_config_cp_size or parallelism_config_sp_size"),
        ("fsdp2", sizes(tp_size=2), "may name parallelism_config_cp_size or parallelism_config_sp_size"),
    ],
)
def test_configs_of_other_kinds_are_one_sentence(tmp_path: Path, base: str, named: dict[str, int], told: str) -> None:
    name = own(tmp_path, base, parallelism_config=named)
    with pytest.raises(UserError, match=told):
        find_launcher(name, GPUS, [tmp_path])


def test_sizes_of_one_share_nothing(tmp_path: Path) -> None:
    name = own(tmp_path, "fsdp2", parallelism_config=sizes(cp_size=1, sp_size=1))
    assert find_launcher(name, GPUS, [tmp_path]).launch == Launch(name, 16, "fsdp2")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (SftConfig(attention="flex_attention"), "attention: flex_attention"),
        (SftConfig(activations="offload"), "activations: offload"),
        (DpoConfig(lora=LoraConfig(four_bit=True)), "lora.four_bit"),
    ],
)
def test_what_a_cpu_does_not_have_is_refused_before_the_run(config: Any, named: str) -> None:
    cpu = Machine(device="cpu")
    with pytest.raises(UserError, match=f"{named} needs CUDA, and machine.device is cpu$"):
        check_launcher(config, cpu, [])
    with pytest.raises(UserError, match=rf"{named} needs CUDA, and machine.device is cpu \(launch cpu_2proc\)"):
        check_launcher(config.model_copy(update={"launch": "cpu_2proc"}), Machine(), [])
    for machine in (Machine(), Machine(device="cuda")):
        check_launcher(config, machine, [])
    check_launcher(SftConfig(packing=512, lora=LoraConfig(), activations="recompute"), cpu, [])


def test_a_reference_is_launched_as_training_is() -> None:
    for name in ("ddp", "zero3", "fsdp2"):
        check_launcher(ReferenceConfig(launch=name), GPUS, [])
    with pytest.raises(UserError, match="launch fsdp2_context lets processes share a row, which sft alone can"):
        check_launcher(ReferenceConfig(launch="fsdp2_context"), GPUS, [])


def test_adapters_go_with_every_launcher_that_leaves_weights_whole() -> None:
    for name in ("one_gpu", "ddp", "zero2"):
        check_launcher(SftConfig(launch=name, lora=LoraConfig()), GPUS, [])
    for name in ("fsdp2", "zero3", "zero3_offload"):
        with pytest.raises(UserError, match=f"lora cannot be merged under launch {name}"):
            check_launcher(SftConfig(launch=name, lora=LoraConfig()), GPUS, [])


def test_packing_goes_with_every_launcher_that_leaves_rows_whole() -> None:
    for name in ("ddp", "zero2", "zero3", "fsdp2"):
        check_launcher(SftConfig(launch=name, packing=8192, attention="flash_attention_2"), GPUS, [])


def test_shipped_recipes_for_several_devices_launch_their_training() -> None:
    """What trains in the run's own worker has one device."""
    for path in shipped_recipes().values():
        recipe = load_recipe(path)
        configs = [entry.config for entries in recipe.by_round for entry in entries if hasattr(entry.config, "launch")]
        inline = [config for config in configs if config.launch == INLINE]
        assert bool(inline) == bool(configs and recipe.machine.devices == 1), path


def test_weights_are_read_by_one_process_whatever_an_own_config_of_fsdp_says(tmp_path: Path) -> None:
    """The other processes have none to give."""
    settings = {"fsdp_version": 2, "fsdp_cpu_ram_efficient_loading": False}
    found = find_launcher(own(tmp_path, "fsdp2", fsdp_config=settings), GPUS, [tmp_path])
    assert found.values["fsdp_config"] == {"fsdp_version": 2, "fsdp_cpu_ram_efficient_loading": True}
