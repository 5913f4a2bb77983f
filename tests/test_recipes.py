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
