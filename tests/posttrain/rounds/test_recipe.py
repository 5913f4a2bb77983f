"""Recipes: what is refused, how it is said, and that nothing a user writes gives a traceback."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.errors import PosttrainError, RecipeError
from posttrain.rounds.plan import Plan, make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import find_recipe

QUICKSTART = find_recipe("quickstart")


def plan_of(path: Path, *sets: str) -> Plan:
    return make_plan(load_recipe(path, list(sets)), path)


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, *sets: str) -> str:
    with pytest.raises(RecipeError) as caught:
        plan_of(path, *sets)
    return str(caught.value)


def test_all_faults_come_at_once_with_line_and_nearest_key(tmp_path: Path) -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    text = text.replace("reference: sft, learning_rate", "reference: sft, learning_rat")
    mine = "long_context: {from: file, path: my_prompts.jsonl, rows: 9"
    text = re.sub(r"long_context: \{from: synth[^}]*", mine, text)
    text = text.replace("long_context: {level: 2}, ", "")
    text = text.replace("k: 8", "k: 0")
    said = problems_of(written(tmp_path, text))
    lines = {
        needle: number
        for number, line in enumerate(text.splitlines(), 1)
        for needle in ("learning_rat:", "k: 0")
        if needle in line
    }
    assert said.startswith("3 checks failed")
    assert (
        f"recipe.yaml:{lines['learning_rat:']} round.dpo.learning_rat: unknown key; did you mean learning_rate?" in said
    )
    assert f"recipe.yaml:{lines['k: 0']} round.sample.k: input should be greater than or equal to 1, got 0" in said
    assert "my_prompts.jsonl not found" in said and str(tmp_path) in said


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("round.sfft.epochs=1", "round.sfft: unknown stage; did you mean sft?"),
        ("overrides.7.sft.epochs=1", "overrides.7: there is no such round"),
        ("overrides.2.sftt.epochs=1", "overrides.2.sftt: unknown stage; did you mean sft?"),
        ("overrides.2.sft.epoch=1", "overrides.2.sft.epoch: unknown key; did you mean epochs?"),
        ("models.base=nowhere", "models.base: nowhere not found"),
        ("round.sft.init=missing", "there is no model 'missing'"),
        ("round.mine.stage=no.such.module", "stage 'no.such.module': no SPEC"),
        ("machine.threads=lots", "machine.threads: input should be a valid integer"),
        ("name=", "name: is missing"),
        ("seed=-1", "seed: input should be greater than or equal to 0, got -1"),
        ("nope.x=1", "--set nope: unknown key; did you mean name?"),
        ("models=7", "--set models: input should be a mapping of keys, got 7"),
        ("models.base=tiny/bse", "models.base: there is no tiny/bse; with the package come tiny/base, tiny/teacher"),
        ("round.dpo.beta=.inf", "round.dpo.beta: input should be a finite number, got inf"),
        ("machine.device=tpu", "machine.device: string should match pattern"),
        ("machine.teraflops=0", "machine.teraflops: input should be greater than 0"),
        ("machine.batch_tokens=0", "machine.batch_tokens: input should be greater than or equal to 1"),
    ],
)
def test_a_fault_is_named(assignment: str, says: str) -> None:
    assert says in problems_of(QUICKSTART, assignment)


@pytest.mark.parametrize(
    ("assignment", "only"),
    [
        ("prompts.tool_use.rows=-1", "--set prompts.tool_use.rows: input should be greater than or equal to 1, got -1"),
        ("prompts.tool_use.from=genral", "prompts.tool_use: there is no pipeline 'genral'; there are code, "),
        ("round.sft=3", "--set round.sft: input should be a mapping of keys, got 3"),
        ("rounds=2.5", "--set rounds: input should be a valid integer, got a number with a fractional part, got 2.5"),
    ],
)
def test_one_fault_is_told_once_and_not_what_follows_from_it(assignment: str, only: str) -> None:
    told = problems_of(QUICKSTART, assignment)
    assert told.startswith("1 check failed") and only in told


def test_faults_of_keys_do_not_hide_those_of_values(tmp_path: Path) -> None:
    said = problems_of(written(tmp_path, "extends: quickstart\noverrides: {two: {sft: {epochs: 2}}, 9: {}}\n"))
    assert "overrides.two.[key]: input should be a valid integer" in said
    assert "overrides.9: there is no such round" in said


def test_a_stage_without_what_it_needs_names_it() -> None:
    said = problems_of(QUICKSTART, "round.sample=null")
    assert "round.annotate: needs responses, and no stage before it makes any" in said


def test_overrides_change_one_round_only() -> None:
    recipe = load_recipe(QUICKSTART, ["overrides.2.dpo.learning_rate=5e-5"])
    rates = [next(e.config.learning_rate for e in entries if e.name == "dpo") for entries in recipe.by_round]  # type: ignore[attr-defined]
    first = load_recipe(QUICKSTART).by_round[0]
    assert rates == [next(e.config.learning_rate for e in first if e.name == "dpo"), 5e-5]  # type: ignore[attr-defined]


def test_a_null_override_leaves_a_stage_out_of_that_round() -> None:
    recipe = load_recipe(QUICKSTART, ["overrides={1: {gate: null}}"])
    assert [("gate" in [e.name for e in entries]) for entries in recipe.by_round] == [False, True]


def _paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [path for key, item in value.items() for path in [(*at, str(key)), *_paths(item, (*at, str(key)))]]


BASE = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
PATHS = _paths(BASE)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["sft", "base", "all", "1e999", ".."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken_recipes(draw: st.DrawFn) -> str:
    """The quick start with one to three values, keys or characters changed at random."""
    values = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PATHS))
        inner = values
        for part in path[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            continue
        action = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if action in ("remove", "rename"):
            old = inner.pop(path[-1], None)
            if action == "rename":
                inner[draw(st.text(min_size=1, max_size=10))] = old
        else:
            inner[path[-1] if action == "replace" else draw(st.text(max_size=8))] = draw(JUNK)
    text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=4)) + text[at + draw(st.integers(0, 4)) :]
    return text


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(text=broken_recipes())
def test_a_thousand_broken_recipes_never_give_a_traceback(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        plan_of(path)
    except PosttrainError as error:
        assert str(error) and error.exit_code == 2


def test_unknown_keys_are_told_the_valid_ones_as_a_recipe_writes_them() -> None:
    said = problems_of(QUICKSTART, "prompts.tool_use.xyzzy=1")
    assert "prompts.tool_use.xyzzy: unknown key of `from: synth`; valid are from, rows, " in said


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{path: tiny/base, template: llama-4}", "models.base.template: input should be 'llama-3.1', 'llama-3.1-hf'"),
        (
            "{endpoint: 'http://localhost:1/v1', model: m, date: today}",
            "date goes with a path, and here is an endpoint",
        ),
        ("{path: tiny/base, tools_in: assistant}", "models.base.tools_in: input should be 'user' or 'system'"),
    ],
)
def test_templates_that_no_model_can_have(tmp_path: Path, model: str, says: str) -> None:
    path = written(tmp_path, f"name: x\nmodels: {{base: {model}}}\nround: {{read: {{path: rows.jsonl}}}}\n")
    (tmp_path / "rows.jsonl").write_text("")
    assert says in problems_of(path)
