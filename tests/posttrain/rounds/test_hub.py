"""A hub model at a pinned revision, out of a cache made by hand: no network."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from posttrain.errors import UserError
from posttrain.rounds import worker
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.run import Choice, _Run

COMMITS = {"v1": "1" * 40, "main": "2" * 40}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Two revisions of org/tiny, as the hub's own cache keeps them."""
    repo = tmp_path / "hub" / "models--org--tiny"
    for name, commit in COMMITS.items():
        folder = repo / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"architectures": [name]}))
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / name).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def architecture(folder):
    return json.loads((Path(folder) / "config.json").read_text())["architectures"][0]


def test_a_stage_gets_the_folder_of_the_pinned_revision(cache):
    given = {
        "init": {"source": "org/tiny", "revision": "v1"},
        "model": [{"source": "org/tiny", "revision": COMMITS["main"]}, {"source": "org/tiny"}],
        "rows": {"artifact": "/x"},
    }
    found = worker._inputs(given)
    assert architecture(found["init"]) == "v1"
    assert architecture(found["model"][0]) == "main"
    assert found["model"][1] == "org/tiny" and found["rows"] == Path("/x")
    with pytest.raises(UserError, match="model org/tiny at revision v9 cannot be fetched"):
        worker._inputs({"init": {"source": "org/tiny", "revision": "v9"}})


RECIPE = """\
name: pinned
models:
  base: {path: org/tiny, revision: v1, parameters: 1000}
  other: {path: org/tiny, parameters: 1000}
round:
  read: {path: prompts.jsonl, format: prompts}
  sample: {model: [base, other], k: 2}
"""


def test_the_revision_of_a_recipe_reaches_the_stage(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    plan = make_plan(load_recipe(path, []), path)
    node = next(node for node in plan.nodes if node.name == "sample")
    order = _Run(plan, tmp_path, None, Choice(), False, 0.0)._order(node, tmp_path / "part")
    assert order.inputs["model"] == [{"source": "org/tiny", "revision": "v1"}, {"source": "org/tiny"}]
