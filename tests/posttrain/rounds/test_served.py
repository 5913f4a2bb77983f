"""Models behind endpoints in a recipe: what enters a key, what is refused before anything runs."""

from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

from posttrain.config import semantic
from posttrain.endpoint import Endpoint
from posttrain.errors import RecipeError
from posttrain.rounds.plan import Plan, make_plan, parents_record
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.view import console, plan_table, plan_total
from posttrain.stages import External

URL = "http://127.0.0.1:9/v1"
RECIPE = """\
name: served
models:
  base: tiny/base
  teacher: {endpoint: %s, model: big}
round:
  read: {path: prompts.jsonl, format: prompts}
  sample: {model: teacher, k: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE % URL)
    return path


def plan_of(path: Path, *sets: str) -> Plan:
    return make_plan(load_recipe(path, list(sets)), path)


def key_of(path: Path, *sets: str) -> str:
    return next(node.key for node in plan_of(path, *sets).nodes if node.name == "sample")


def fault_of(path: Path, *sets: str) -> str:
    with pytest.raises(RecipeError) as caught:
        plan_of(path, *sets)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    "setting",
    [
        "endpoint=[http://a/v1, https://b:8/v1]", "concurrency=7", "timeout=1", "retries=0", "budget=3",
        "price={input: 1, output: 2}", "can={n: false}", "api_key_env=HOME",
    ],
)  # fmt: skip
def test_where_and_how_it_is_reached_changes_no_key(recipe: Path, setting: str) -> None:
    assert key_of(recipe, f"models.teacher.{setting}") == key_of(recipe)


@pytest.mark.parametrize("setting", ["model=other", "revision=v2", "context=99", "extra={top_k: 5}"])
def test_what_answers_and_what_it_is_sent_change_the_key(recipe: Path, setting: str) -> None:
    assert key_of(recipe, f"models.teacher.{setting}") != key_of(recipe)


def test_the_plan_says_what_a_priced_model_will_charge(recipe: Path) -> None:
    """A file of 50 bytes counts as 12 tokens, and 2 answers may have 50 each, of which a fifth is expected."""
    sets = ("models.teacher.price={input: 1000000, output: 2000000}", "round.sample.max_new_tokens=50")
    node = next(node for node in plan_of(recipe, *sets).nodes if node.name == "sample")
    assert node.size.cost == 12 * 1 + 2 * 10 * 2
    plan = plan_of(recipe, *sets, "models.teacher.budget=30")
    (line,) = [line for line in printed(plan_table(plan, "runs", dict.fromkeys(ids(plan), "run"))) if "sample" in line]
    assert "52.00 of 30.00" in line
    assert plan_total(plan, plan.nodes).endswith("52.00 for served models")
    free = plan_of(recipe)
    assert "cost" not in printed(plan_table(free, "runs", dict.fromkeys(ids(free), "run")))[1]
    assert "served models" not in plan_total(free, free.nodes)


def ids(plan: Plan) -> list[str]:
    return [node.id for node in plan.nodes]


def printed(table: Table) -> list[str]:
    out = console(StringIO())
    out.print(table)
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_no_url_enters_what_a_manifest_records(recipe: Path) -> None:
    node = next(node for node in plan_of(recipe).nodes if node.name == "sample")
    (teacher,) = node.inputs["model"]
    assert isinstance(teacher, External) and teacher.served is not None
    assert teacher.served.endpoint == (URL,)
    assert parents_record(node, recipe.parent)["model"] == [{"source": "big", "fingerprint": teacher.fingerprint}]
    assert "9/v1" not in str(semantic(teacher.served))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("models.other={endpoint: http://a/v1}", "model is missing: the name that the endpoint knows the model by"),
        ("models.other={path: tiny/base, endpoint: http://a/v1}", "either the path of a model or the endpoint"),
        ("models.other={path: tiny/base, budget: 3}", "budget goes with an endpoint, and here is a path"),
        ("models.teacher.endpoint=localhost:8000", "write each endpoint as http://host:port/v1"),
        ("models.teacher.concurency=3", "unknown key; did you mean concurrency?"),
        ("models.teacher.api_key_env=NO_SUCH_KEY", "the environment has no NO_SUCH_KEY"),
    ],
)
def test_what_cannot_be_reached_is_refused(recipe: Path, setting: str, says: str) -> None:
    assert says in fault_of(recipe, setting)


def test_a_stage_that_needs_the_models_files_refuses_one_behind_an_endpoint(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "  average: {of: [base, teacher]}\n")
    assert "model 'teacher' is behind an endpoint, and the model's own files are needed here" in fault_of(recipe)


def test_an_endpoint_goes_to_the_worker_and_back_as_it_is() -> None:
    endpoint = Endpoint.model_validate({"endpoint": URL, "model": "big", "can": {"n": False}, "extra": {"top_k": 1}})
    assert Endpoint.model_validate(endpoint.model_dump(mode="json")) == endpoint
