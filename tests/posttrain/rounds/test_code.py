"""The hash of a stage's code: what it imports counts, near and far, and nothing else does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.rounds.code import UNKNOWN, code_files

ROOT = Path(__file__).parents[3]
FILES = {
    "own_stage.py": "import json\nfrom own_parts import (  # in two ) lines\n    first,\n)\n\n\ndef run(job):\n"
    "    from own_parts.deep import \\\n        second\n",
    "own_stage_spec.py": '"""A spec.\n\nfrom here it is prose\nimport nothing at all\n"""\n',
    "own_parts/__init__.py": "from .first import answer\n",
    "own_parts/first.py": "import torch\n\nanswer = 42\n",
    "own_parts/deep/__init__.py": "",
    "own_parts/deep/second.py": "from ..third import *\nfrom posttrain.errors import UserError\n",
    "own_parts/third.py": "",
    "own_parts/prompt.jinja": "Say {{ it }}.",
    "own_parts/words/more.jinja": "",
    "own_parts/unused.py": "",
    "unused.py": "",
}


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def told(stage: Path, code: str) -> str:
    """What a fresh process says that finds the stage on its path."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stage), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_a_stage_is_its_imports_in_any_form(stage: Path) -> None:
    code = "from posttrain.rounds.code import code_files; print(*sorted(code_files('own_stage')), sep='\\n')"
    assert told(stage, code).split() == [
        "own_parts", "own_parts.deep", "own_parts.deep.second", "own_parts.first", "own_parts.third",
        "own_parts/prompt.jinja", "own_parts/words/more.jinja", "own_stage", "own_stage_spec", "posttrain",
        "posttrain.errors",
    ]  # fmt: skip


def test_the_hash_follows_what_is_imported_and_neither_place_nor_strangers(stage: Path, tmp_path: Path) -> None:
    code = "from posttrain.rounds.code import source_hash; print(source_hash('own_stage'))"
    before = told(stage, code)
    for name in ("unused.py", "own_parts/unused.py"):
        (stage / name).write_text("changed = True\n")
    assert told(stage, code) == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in [path for path in stage.iterdir() if path != moved]:
        path.rename(moved / path.name)
    assert told(moved, code) == before
    for name in ("own_parts/third.py", "own_parts/words/more.jinja", "own_stage_spec.py"):
        (moved / name).write_text("changed = True\n")
        after = told(moved, code)
        assert after != before
        before = after
    (moved / "own_stage_spec.py").unlink()
    assert told(moved, code).strip() == UNKNOWN


def test_the_shipped_stages_know_their_helpers_and_no_stranger() -> None:
    sft, dpo, synth = (code_files(name) for name in ("posttrain.train.sft", "posttrain.train.dpo", "synth.generate"))
    assert {"posttrain.train.batches", "posttrain.train.trainer", "posttrain.engines.lists"} <= set(sft)
    assert "posttrain.train.losses" in dpo and "posttrain.train.losses" not in sft
    assert "posttrain.chat/llama31.jinja" in sft
    assert any(name.startswith("synth.prompts/") and name.endswith("new_prompt.jinja") for name in synth)
    assert not [name for name in synth if name.startswith(("reward", "eval", "posttrain.rounds", "posttrain.cli"))]
    assert all(path.is_file() for path in synth.values())
    assert code_files("json.decoder") == {}


def test_what_a_config_names_is_code_of_its_stage(tmp_path: Path) -> None:
    for name, text in {
        "recipe.yaml": "name: r\nmodels: {base: tiny/base, teacher: tiny/teacher}\n"
        "prompts: {own: {from: own.pipe, rows: 1}}\nround: {synthesize: {}}\n",
        "own/__init__.py": "",
        "own/pipe.py": "from own.helper import VALUE\n\n\ndef make(work):\n    pass\n",
        "own/pipe_spec.py": "from synth.sources import Expected, PipelineSpec, SourceConfig\n\nPIPELINE = PipelineSpec("
        "module='own.pipe', version=1, Config=SourceConfig, estimate=lambda *given: Expected())\n",
        "own/helper.py": "VALUE = 1\n",
        "own/words.yaml": "a: 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = (
        "from pathlib import Path; from posttrain.rounds.plan import make_plan; "
        "from posttrain.rounds.recipe import load_recipe; path = Path('recipe.yaml'); "
        "node = make_plan(load_recipe(path), path).nodes[0]; print(node.key, node.source_hash)"
    ).replace("Path('recipe.yaml')", f"Path({str(tmp_path / 'recipe.yaml')!r})")
    key, before = told(tmp_path, code).split()
    for name in ("own/helper.py", "own/words.yaml"):
        (tmp_path / name).write_text("VALUE = 2\n" if name.endswith(".py") else "a: 2\n")
        same, after = told(tmp_path, code).split()
        assert same == key and after not in (before, UNKNOWN)
        before = after


def test_the_pipelines_of_a_recipe_count_and_others_do_not() -> None:
    multilingual = code_files("synth.pipelines.multilingual")
    needed = {"synth.pipelines.multilingual_spec", "synth.multilingual.phrases", "synth.operators.asking"}
    assert needed <= set(multilingual)
    assert "synth.safety/hazards.yaml" in code_files("synth.pipelines.safety")
    assert not [name for name in multilingual if name.startswith(("synth.pipelines.safety", "synth.safety"))]
