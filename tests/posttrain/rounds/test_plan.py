"""Keys and wiring: what reruns when something changes, and what does not."""

import dataclasses
from pathlib import Path

import pytest

from posttrain.estimate import PROCESS_BYTES
from posttrain.rounds.plan import Node, Plan, flat, make_plan, parents_record
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import find_recipe
from posttrain.rounds.sources import llama_parameters
from posttrain.stages import External

QUICKSTART = find_recipe("quickstart")


def plan_of(*sets: str) -> Plan:
    return make_plan(load_recipe(QUICKSTART, list(sets)), QUICKSTART)


def changed(*sets: str) -> set[str]:
    before, after = ({node.id: node.key for node in plan.nodes} for plan in (plan_of(), plan_of(*sets)))
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def node(plan: Plan, name: str) -> Node:
    return next(n for n in plan.nodes if n.id == name)


def test_keys_are_the_same_every_time() -> None:
    assert [n.key for n in plan_of().nodes] == [n.key for n in plan_of().nodes]
    assert len({n.key for n in plan_of().nodes}) == len(plan_of().nodes)


def test_the_dpo_rate_of_the_last_round_changes_dpo_and_what_follows() -> None:
    assert changed("overrides.2.dpo.learning_rate=0.5") == {"round-2/dpo", "round-2/evaluate-dpo", "round-2/gate"}


def test_operational_settings_change_no_key() -> None:
    assert (
        changed("machine.threads=1", "machine.batch_tokens=99", "machine.train_tokens=9", "machine.teraflops=5")
        == set()
    )


def test_the_seed_changes_every_key() -> None:
    assert changed("seed=99") == {n.id for n in plan_of().nodes}


def test_a_scoring_weight_leaves_samples_and_the_reward_model_alone() -> None:
    ids = changed("overrides.1.score.votes=0.25")
    assert not ids & {"round-1/sample", "round-1/annotate", "round-1/reward"}
    assert {"round-1/score", "round-1/select", "round-1/sft", "round-2/sample"} <= ids


def test_every_input_of_a_stage_stands_before_it() -> None:
    seen: set[str] = set()
    for n in plan_of().nodes:
        assert {parent.id for parent in n.parents} <= seen
        seen.add(n.id)


def test_each_round_starts_sft_from_base_samples_from_the_round_before_and_anchors_dpo_in_its_own_sft() -> None:
    plan = plan_of()
    for number in (1, 2):
        init = node(plan, f"round-{number}/sft").inputs["init"]
        assert isinstance(init, External) and init.source.endswith("base")
        assert node(plan, f"round-{number}/dpo").inputs["reference"].id == f"round-{number}/sft"
    assert isinstance(node(plan, "round-1/sample").inputs["model"][0], External)
    assert node(plan, "round-2/sample").inputs["model"][0].id == "round-1/gate"
    assert plan.final is not None and plan.final.id == "round-2/gate"


def test_the_reward_model_of_round_2_sees_the_preferences_of_both_rounds() -> None:
    inputs = node(plan_of(), "round-2/reward").inputs["preferences"]
    assert [parent.id for parent in inputs] == ["round-1/annotate", "round-2/annotate"]


def test_every_stage_has_an_estimate() -> None:
    for n in plan_of().nodes:
        assert n.size.seconds >= 0 and n.size.memory >= 0
        assert n.size.rows > 0 or n.size.parameters > 0, n.id


def test_on_a_cpu_the_process_is_part_of_the_memory_of_what_runs_a_model() -> None:
    on_cpu, on_gpu = plan_of("machine.device=cpu"), plan_of("machine.device=cuda")
    for one, other in zip(on_cpu.nodes, on_gpu.nodes, strict=True):
        assert one.size.memory - other.size.memory == (PROCESS_BYTES if other.size.memory else 0)
    assert node(on_gpu, "setup/heldout").size.memory == 0 < node(on_gpu, "round-1/sft").size.memory


def test_a_model_with_a_template_is_prepared_first_and_taken_by_every_stage() -> None:
    plan = plan_of("models.base={path: tiny/base, template: llama-3.1}")
    first = plan.nodes[0]
    assert first.id == "setup/prepare-base" and first.inputs["model"].source.endswith("base")
    assert [n.id for n in plan.nodes[1:]] == [n.id for n in plan_of().nodes]
    takes_base = ("setup/evaluate-base", "round-1/sample", "round-1/sft", "round-2/sft")
    for name in takes_base:
        assert first in node(plan, name).parents, name
    sources = [item.source for n in plan.nodes[1:] for item in flat(n.inputs) if isinstance(item, External)]
    assert sources and not any(source.endswith("base") for source in sources)
    assert plan.final is not None and plan.final.id == "round-2/gate"


def test_the_date_of_a_model_changes_the_keys_of_what_is_made_from_it() -> None:
    at = "models.base={path: tiny/base, template: llama-3.1, date: %s}"
    one, two = ({n.id: n.key for n in plan_of(at % date).nodes} for date in ("26 Jul 2024", "27 Jul 2024"))
    assert one["setup/heldout"] == two["setup/heldout"]
    assert {"setup/prepare-base", "round-1/sample", "round-1/sft"} <= {name for name in one if one[name] != two[name]}


def test_the_plan_expects_rows_and_tokens_of_what_comes_out() -> None:
    """650 prompts: 65 answered by the teacher; of 260 looked at, three in four get pairs, so that 454 are scored."""
    plan = plan_of("round.annotate.share=0.4", "round.synthesize.share=0.1", "round.sample.k=8")
    rows = {n.id: n.size.rows for n in plan.nodes}
    assert (rows["round-1/synthesize"], rows["round-1/sample"]) == (650, 650 * 8)
    assert (rows["round-1/select"], rows["round-1/mix"], rows["round-1/dpo"]) == (454, 454 + 65, 454)
    assert rows["round-2/mix"] == 2 * (454 + 65)
    assert node(plan, "round-2/sft").size.tokens == node(plan, "round-2/mix").size.tokens


def test_a_changed_model_folder_changes_the_keys_of_what_is_made_from_it(tmp_path: Path) -> None:
    source = Path(next(i for i in flat(node(plan_of(), "round-1/sample").inputs) if isinstance(i, External)).source)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    same = {n.id: n.key for n in plan_of(f"models.base={tmp_path}").nodes}
    assert same == {n.id: n.key for n in plan_of().nodes}
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    other = {n.id: n.key for n in plan_of(f"models.base={tmp_path}").nodes}
    assert other["round-1/sample"] != same["round-1/sample"] and other["setup/heldout"] == same["setup/heldout"]


def test_parents_of_a_stage_that_has_not_run_have_no_content(tmp_path: Path) -> None:
    record = parents_record(node(plan_of(), "round-1/select"), tmp_path)
    assert record["prompts"]["id"] == "round-1/synthesize" and record["prompts"]["content"] is None


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (
            {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14_336},
            8_030_261_248,
        ),
        (
            {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "tie_word_embeddings": True},
            1_235_814_400,
        ),
    ],
)
def test_parameters_of_the_public_llamas(shape: dict[str, int], parameters: int) -> None:
    heads = {"vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8}
    assert llama_parameters(heads | shape) == parameters


def test_nodes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_of().nodes[0].key = "x"  # type: ignore[misc]
