"""`posttrain preflight` on real recipes: a user's file is read and proven, and nothing is trained."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posttrain.errors import UserError
from posttrain.inspect.proving import prove
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import find_recipe
from tests.posttrain.train.helpers import bare_model

RECIPE = """\
name: mine
models: {base: %s}
round:
  read: {path: rows.jsonl}
  sft: {batch_size: 4%s}
"""
SOUND = {"messages": [{"role": "user", "content": "Say cat."}, {"role": "assistant", "content": "cat"}]}
CALL = {"type": "function", "function": {"name": "get_wether", "arguments": {}}}
UNDECLARED = {
    "messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
    "tools": [{"name": "get_weather", "parameters": {"type": "object"}}],
}
LONG = {
    "messages": [
        {"role": "user", "content": "one " * 80}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "2"},
    ],
    "source": "talks",
}  # fmt: skip


def recipe(folder: Path, model: Path | str, rows: list[Any], more: str = "") -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(RECIPE % (model, more))
    return path


def proven(path: Path, root: Path, stage: str | None = None) -> str:
    out = io.StringIO()
    try:
        prove(make_plan(load_recipe(path), path), root, stage, Console(file=out, width=160, soft_wrap=True))
    except UserError as error:
        out.write(f"refused: {error}")
    return out.getvalue()


def test_a_model_that_gets_its_template_from_the_recipe_is_prepared_for_it(tmp_path: Path, tiny_model: Path) -> None:
    bare = bare_model(tiny_model, tmp_path / "bare")
    path = recipe(tmp_path, f"{{path: {bare}, template: llama-3.1}}", [SOUND])
    shown = proven(path, tmp_path / "run")
    assert "⟦cat⟧⟪<|eot_id|>⟫" in shown
    assert (tmp_path / "run" / "setup" / "prepare-base" / "chat_template.jinja").is_file()


def test_sound_rows_are_shown_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, [SOUND, LONG], ", max_length: 100, over_length: {talks: truncate_context}")
    shown = proven(path, tmp_path / "run")
    assert "⟦cat⟧⟪<|eot_id|>⟫" in shown
    assert "⟦2⟧⟪<|eot_id|>⟫" in shown
    ledger = [line.split() for line in shown.splitlines() if line.startswith(("rows.jsonl ", "talks "))]
    assert [line[:2] for line in ledger] == [["rows.jsonl", "1"], ["talks", "1"]]
    assert "1 lost" in shown
    assert "tokens of their oldest turns" in shown
    assert shown.splitlines()[-1].startswith("13 of 13 checks hold for 2 rows")
    assert not list((tmp_path / "run" / "store").glob("round-1-sft*"))


def test_a_failing_row_ends_with_2_and_its_name(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, [SOUND, UNDECLARED])
    result = subprocess.run(
        [sys.executable, "-m", "posttrain", "preflight", str(path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "calls get_wether, declared are get_weather" in result.stderr
    assert "Traceback" not in result.stderr
    assert "✗ it does not hold that every tool that is called is declared" in result.stdout
    assert "12 of 13 checks hold for 2 rows" in result.stdout
    assert result.stdout.index("get_wether") < result.stdout.index("⟦cat⟧")


def test_a_run_stops_at_the_same_row(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, [SOUND, LONG], ", max_length: 100")
    result = subprocess.run(
        [sys.executable, "-m", "posttrain", "run", str(path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "round-1/sft: the preflight failed and nothing was trained" in result.stderr
    assert "or say in over_length what is to be done with long rows of talks" in result.stderr


def test_rows_that_a_model_has_yet_to_make(tmp_path: Path) -> None:
    path = find_recipe("quickstart")
    told = proven(path, tmp_path / "run", "sft")
    assert told.startswith("refused: round-1/sft has no rows yet: round-1/mix must run first")
    assert "--round 1 --until mix" in told
    assert not (tmp_path / "run").exists()


def test_a_stage_that_trains_nothing_is_no_stage(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, [SOUND])
    told = "refused: --stage read: no training stage has that name; there are sft"
    assert proven(path, tmp_path / "run", "read") == told
    assert proven(path, tmp_path / "run", "sfft").endswith("did you mean sft?")


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_the_shipped_single_stage_recipes_are_sound(name: str, tmp_path: Path) -> None:
    shown = proven(find_recipe(name), tmp_path / "run")
    assert "13 of 13 checks hold for 8 rows, 8 of them rendered a second time by transformers" in shown
