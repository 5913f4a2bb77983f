"""Curation in a recipe: each table stands in place of what was read for it, and what matters is in the key."""

import importlib
from itertools import pairwise

import pytest

from posttrain.data.rows import Row
from posttrain.data.tables import write_table
from posttrain.errors import RecipeError
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe

RECIPE = """
name: curated
models: {base: tiny/base, teacher: tiny/teacher}
prompts: {instructions: {from: synth, rows: 10}}
setup:
  heldout: {n: 20}
  read: {stage: posttrain.data.read, path: more.jsonl}
round:
  synthesize: {model: teacher, share: 1}
  filter: {stage: synth.curate.decontaminate, over: prompts}
  sample: {model: previous, k: 2}
  annotate: {by: verifier}
  select: {sft: random, pairs: none}
  clean: {apology: 0.1}
  difficulty: {judge: teacher, tagger: teacher}
  quality: {judge: teacher, reward_share: null}
  topics: {model: teacher, topics: [law, maths]}
  semantic_dedupe: {encoder: base}
  dedupe: {keep: quality}
  decontaminate: {ngram: 13}
  mix: {rounds: all}
  sft: {init: base}
rounds: 2
"""
CHAIN = ["clean", "difficulty", "quality", "topics", "semantic_dedupe", "dedupe", "decontaminate", "mix"]


@pytest.fixture
def plan_of(tmp_path):
    (tmp_path / "more.jsonl").write_text('{"messages": [{"role": "assistant", "content": "x"}]}\n', "utf-8")

    def plan_of(text=RECIPE, *sets):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return {node.id: node for node in make_plan(load_recipe(path, list(sets)), path).nodes}

    return plan_of


def parents(node, name):
    return [parent.id for parent in node.inputs[name]]


@pytest.mark.parametrize("number", [1, 2])
def test_each_stage_reads_what_the_one_before_it_left(plan_of, number):
    nodes = plan_of()
    assert parents(nodes[f"round-{number}/clean"], "rows") == [f"round-{number}/synthesize", f"round-{number}/select"]
    for before, after in pairwise(CHAIN[:-1]):
        assert parents(nodes[f"round-{number}/{after}"], "rows") == [f"round-{number}/{before}"]


def test_the_mix_takes_the_last_of_each_round_and_rows_that_nobody_curated(plan_of):
    nodes = plan_of()
    assert parents(nodes["round-1/mix"], "rows") == ["setup/read", "round-1/decontaminate"]
    assert parents(nodes["round-2/mix"], "rows") == ["setup/read", "round-1/decontaminate", "round-2/decontaminate"]


def test_decontaminated_prompts_are_what_is_sampled_and_selected(plan_of):
    nodes = plan_of()
    assert nodes["round-2/sample"].inputs["prompts"].id == "round-2/filter"
    assert nodes["round-2/select"].inputs["prompts"].id == "round-2/filter"
    assert parents(nodes["round-2/filter"], "eval_prompts") == ["setup/heldout"]


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("round.clean.emoji=1", "clean"),
        ("round.quality.judge=base", "quality"),
        ("round.topics.topics=[law]", "topics"),
        ("round.semantic_dedupe.encoder=teacher", "semantic_dedupe"),
        ("round.decontaminate.overlap=0", "decontaminate"),
        ("round.semantic_dedupe.batch_size=2", None),
    ],
)
def test_a_change_reruns_from_there_on_and_nothing_before(plan_of, change, first):
    before, after = plan_of(), plan_of(RECIPE, change)
    changed = [name for name in CHAIN if before[f"round-1/{name}"].key != after[f"round-1/{name}"].key]
    assert changed == (CHAIN[CHAIN.index(first) :] if first else [])


def test_the_text_of_a_question_is_in_the_key(plan_of, monkeypatch, tmp_path):
    wiring = importlib.import_module("synth.curate.wiring")
    before = plan_of()
    for path in wiring.QUESTIONS.glob("*.jinja"):
        (tmp_path / path.name).write_text(path.read_text("utf-8") + ("!" if path.stem == "topic" else ""), "utf-8")
    monkeypatch.setattr(wiring, "QUESTIONS", tmp_path)
    after = plan_of()
    changed = [name for name in CHAIN if before[f"round-1/{name}"].key != after[f"round-1/{name}"].key]
    assert changed == CHAIN[CHAIN.index("topics") :]


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ("clean: {}", "no stage before it in this round makes rows"),
        ("decontaminate: {over: prompts}", "no stage before it makes eval prompts"),
        ("dedupe: {over: pairs}", "no stage before it in this round makes pairs"),
        ("quality: {judge: none}", "there is no model 'none'"),
        ("clean: {emojis: 1}", "did you mean emoji?"),
    ],
)
def test_what_is_missing_before_a_stage_is_said(plan_of, stages, says):
    synthesis = "  synthesize: {model: base}\n" if "quality" in stages else ""
    prompts = "prompts: {instructions: {from: synth, rows: 1}}\n" if synthesis else ""
    with pytest.raises(RecipeError) as caught:
        plan_of(f"name: x\nmodels: {{base: tiny/base}}\n{prompts}round:\n{synthesis}  {stages}\n")
    assert says in str(caught.value)


def test_labels_and_whole_rejects_survive_the_disk(tmp_path):
    from posttrain.data.tables import read_table

    item = Row(
        ({"role": "assistant", "content": "x"},), "general", labels={"tags": ["a"], "quality": 0.5, "topic": "ü"}
    )
    write_table(tmp_path, "rows", [item])
    assert read_table(tmp_path, "rows") == [item]
