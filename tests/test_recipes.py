"""Every shipped recipe is planned as it lies."""

from pathlib import Path

import pytest

from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import shipped_recipes

RECIPES = shipped_recipes()
PROMISED = {"quickstart", "sft", "dpo", "llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-benchmarks"}


def test_the_promised_recipes_are_shipped() -> None:
    assert set(RECIPES) >= PROMISED


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_is_planned(name: str) -> None:
    path = RECIPES[name]
    plan = make_plan(load_recipe(path), path)
    assert plan.final is not None or plan.nodes[-1].provides("evaluation")
    keys = [node.key for node in plan.nodes]
    assert len(set(keys)) == len(keys) > 0
    assert all(node.size.rows > 0 or node.size.parameters > 0 for node in plan.nodes)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_has_its_manual_on_top(name: str) -> None:
    head = Path(RECIPES[name]).read_text(encoding="utf-8").splitlines()[0]
    assert head.startswith("# "), f"{RECIPES[name]} should begin with a comment that says what it is for"


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-70b", "llama-3.2-1b"])
def test_the_rounds_of_the_paper_make_every_capability_curate_it_and_mix_it(name: str) -> None:
    """Each capability of `prompts:` is in one part of the mix, and the multilingual temperature is 0.6 in the end."""
    recipe = load_recipe(RECIPES[name])
    rounds = [{entry.name: entry.config for entry in entries} for entries in recipe.by_round]
    prompts = rounds[0]["synthesize"].prompts
    assert {source.from_ for source in prompts.values()} == {
        "file", "general", "steerability", "factuality", "code", "multilingual", "reasoning", "tools", "functions",
        "long_context", "safety",
    }  # fmt: skip
    mixed = [taken for part, one in rounds[0]["mix"].parts.items() for taken in one.capability or (part,)]
    assert sorted(mixed) == sorted(prompts)
    stages = list(rounds[0])
    assert stages[stages.index("select") + 1 : stages.index("mix")] == [
        "clean", "dedupe", "decontaminate", "decontaminate_pairs", "difficulty", "quality", "topics", "semantic_dedupe",
    ]  # fmt: skip
    warm = [one["synthesize"].prompts["multilingual"].temperature for one in rounds]
    assert warm == [(0.2, 1.0)] * 5 + [0.6]
    assert [one["sample"].temperature for one in rounds] == warm
