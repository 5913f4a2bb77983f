"""The command line: what it prints, how it ends, and what it leaves alone."""

import json
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nowhere.yaml"], "recipe 'nowhere.yaml': no such file"),
        (["status", "nowhere"], "nowhere is not the root of a run: it has no plan.json"),
        (["show", "nowhere"], "nowhere is neither a run nor a finished artifact"),
        (["trace", "nowhere", "ab"], "nowhere is not the root of a run"),
        (["chat", "./nowhere"], "nowhere"),
        (["plan", "quickstart", "--set", "round.dpo.learning_rat=1"], "did you mean learning_rate?"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = posttrain(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    command = f"{sys.executable} -m posttrain plan quickstart --json | head -1"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == "{\n"
    assert result.stderr == ""
