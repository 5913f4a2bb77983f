"""The command line: what it prints, how it ends, and what it leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def posttrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "posttrain", *arguments], cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command_and_exit_code(tmp_path: Path) -> None:
    result = posttrain("--help", cwd=tmp_path)
    assert result.returncode == 0
    for word in (
        "run",
        "plan",
        "preflight",
        "recipes",
        "init",
        "status",
        "report",
        "compare",
        "show",
        "trace",
        "chat",
        "75 interrupted",
    ):
        assert word in result.stdout


def test_recipes_are_listed_with_what_they_are_for(tmp_path: Path) -> None:
    result = posttrain("recipes", cwd=tmp_path)
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["quickstart"].startswith("Two rounds on two CPU cores")


def test_init_copies_a_recipe_that_plans_and_never_overwrites(tmp_path: Path) -> None:
    assert posttrain("init", "mine", cwd=tmp_path).returncode == 0
    plan = posttrain("plan", "mine/recipe.yaml", "--json", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["rounds"] == 2
    again = posttrain("init", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "posttrain: mine/recipe.yaml is there already; name another folder\n"


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b", "quickstart/no_dpo"])
def test_init_copies_what_a_recipe_names_or_leaves_it_with_its_parent(tmp_path: Path, name: str) -> None:
    assert posttrain("init", "mine", "--recipe", name, cwd=tmp_path).returncode == 0
    plan = posttrain("plan", "mine/recipe.yaml", "--json", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert (tmp_path / "mine" / "snippets" / "example.js").is_file() == (name == "llama-3.1-8b")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nowhere.yaml"], "recipe 'nowhere.yaml': no such file"),
        (["status", "nowhere"], "nowhere is not the root of a run: it has no plan.json"),
        (["show", "nowhere"], "nowhere is neither a run nor a finished artifact"),
        (["trace", "nowhere", "ab"], "nowhere is not the root of a run"),
        (["chat", "./nowhere"], "nowhere"),
        (["chat", "nowhere"], "nowhere is neither a run, a model folder nor a hub name"),
        (["chat", "nowhere", "--temperature", "nan"], "--temperature: nan: expected a number from 0 on"),
        (["show", "nowhere", "--limit", "-1"], "--limit: -1: expected a number from 0 on"),
        (["run", "quickstart", "--root", ""], "--root: is empty"),
        (["init", ""], "DIR: is empty"),
        (["init", "mine", "--recipe", "nope"], "no shipped recipe is called 'nope'; shipped are dpo, "),
        (["plan", "."], ". is a folder without a recipe.yaml"),
        (["run", "quickstart", "--from", "dpo", "--until", "sft", "--round", "1"], "--until 'sft' comes before --from"),
        (["run", "quickstart", "--only", "sfft", "--round", "2"], "--only 'sfft': no such stage in round 2"),
        (["plan", "quickstart", "--set", "round.dpo.learning_rat=1"], "did you mean learning_rate?"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = posttrain(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "exit_code", "shown"),
    [
        ("plan quickstart --json | head -1", 0, "{\n"),
        ("plan quickstart | true", 0, ""),
        ("run quickstart | true", 75, "posttrain: stopped, because nobody reads this output any more. "),
        ("plan quickstart > /dev/full", 2, "posttrain: cannot read or write: [Errno 28] No space left on device"),
        ("plan quickstart >&-", 0, ""),
        ("plan nowhere 2>&-", 2, ""),
        ("plan quickstart", 0, "quickstart ? 2 rounds ? 26 stages"),
    ],
)
def test_output_that_nobody_can_take(tmp_path: Path, command: str, exit_code: int, shown: str) -> None:
    """A reader that has seen enough, a full disk, a closed stream, an encoding without our marks."""
    script = f"{sys.executable} -m posttrain {command}; echo ${{PIPESTATUS[0]}} > code"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment)
    said = result.stdout + result.stderr
    assert int((tmp_path / "code").read_text()) == exit_code, said
    assert "Traceback" not in said and said.startswith(shown) and bool(said) == bool(shown)
