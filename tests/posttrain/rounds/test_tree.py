"""YAML with lines, parents and assignments."""

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RecipeError, UserError
from posttrain.rounds.tree import load_tree
from posttrain.rounds.values import merge


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_child_changes_its_parent_in_place_and_null_removes(tmp_path: Path) -> None:
    write(tmp_path, "parent.yaml", "name: p\nround:\n  sample: {k: 8, t: 1}\n  dpo: {beta: 0.1}\n")
    child = write(tmp_path, "child.yaml", "extends: parent.yaml\nname: c\nround:\n  sample: {k: 4}\n  dpo: null\n")
    tree = load_tree(child, [])
    assert tree.values == {"name": "c", "round": {"sample": {"k": 4, "t": 1}}}
    assert tree.where(("round", "sample", "k")) == "child.yaml:4"
    assert tree.where(("round", "sample", "t")) == "parent.yaml:3"


def test_set_replaces_one_value_and_reads_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "a: {b: 1e-5, c: 2}\n")
    tree = load_tree(path, ["a.b=3e-4", "a.d.e=[1, 2]"])
    assert tree.values == {"a": {"b": 3e-4, "c": 2, "d": {"e": [1, 2]}}}
    assert tree.where(("a", "b")) == "--set"


def test_scientific_numbers_need_no_dot(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "lr: 1e-5\nname: e5x\nquoted: '1e5'\n")
    assert load_tree(path, []).values == {"lr": 1e-5, "name": "e5x", "quoted": "1e5"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2\n", "r.yaml:2 a: stands twice"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "a recipe is a mapping of keys, got list"),
        ("? [1, 2]\n: 3\n", "a key must be a plain word"),
        ("a: 2024-99-99\n", "r.yaml:1"),
        ("a: !!python/object/apply:os.system [ls]\n", "r.yaml:1: the tag"),
        ("{" * 2000, "not valid YAML"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "r.yaml:3: `<<` is not for recipes"),
        ("extends: nowhere\n", "r.yaml:1 extends: recipe 'nowhere': no such file"),
        ("extends: folder\n", "r.yaml:1 extends: {folder} is a folder without a recipe.yaml"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecipeError) as caught:
        load_tree(write(tmp_path, "r.yaml", text), [])
    assert says.replace("{folder}", str(tmp_path / "folder")) in str(caught.value)


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(RecipeError, match="too deep or too large"):
        load_tree(write(tmp_path, "r.yaml", "\n".join(lines)), [])


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    with pytest.raises(UserError, match=r"circle: .*/b.yaml → .*/a.yaml → .*/b.yaml"):
        load_tree(write(tmp_path, "b.yaml", "extends: a.yaml\n"), [])


def test_set_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a\.b\.c=value"):
        load_tree(write(tmp_path, "r.yaml", "a: 1\n"), ["a.b"])


def test_merge_replaces_lists_whole() -> None:
    base = {"a": [1, 2], "b": {"c": 1}}
    merge(base, {"a": [3], "b": {"d": None}})
    assert base == {"a": [3], "b": {"c": 1}}


PARENT = """\
name: p
rounds: 2
setup: {heldout: {n: 1}, evaluate: {}}
round: {select: {}, mix: {}, sft: {}, evaluate: {}, gate: {}}
overrides: {1: {gate: null}, 2: {sft: {epochs: 2}, mix: {cap: 1}}}
"""


def child_of(folder: Path, text: str, *sets: str) -> dict[str, Any]:
    write(folder, "parent.yaml", PARENT)
    return load_tree(write(folder, "child.yaml", f"extends: parent.yaml\n{text}"), list(sets)).values


@pytest.mark.parametrize(
    ("added", "order"),
    [
        ("dedupe: {}", "select dedupe mix sft evaluate gate"),
        ("dedupe: {}\n  clean: {}", "select clean dedupe mix sft evaluate gate"),
        ("dpo: {}\n  sample: {k: 2}", "sample select mix sft dpo evaluate gate"),
        ("again: {stage: synth.curate.dedupe}", "select again mix sft evaluate gate"),
        ("mine: {stage: my.own}", "select mix sft mine evaluate gate"),
        ("mine: {stage: my.own, before: mix}", "select mine mix sft evaluate gate"),
        ("evaluate: {before: sft}", "select mix evaluate sft gate"),
        ("mix: null\n  mix_pairs: {}", "select mix_pairs sft evaluate gate"),
    ],
)
def test_a_stage_that_a_child_adds_stands_where_it_belongs(tmp_path: Path, added: str, order: str) -> None:
    assert " ".join(child_of(tmp_path, f"round:\n  {added}\n")["round"]) == order


def test_set_adds_a_stage_in_its_place_too(tmp_path: Path) -> None:
    values = child_of(tmp_path, "name: c\n", "setup.read.path=a.jsonl", "round.dpo.beta=0.2")
    assert list(values["setup"]) == ["heldout", "read", "evaluate"]
    assert list(values["round"]) == ["select", "mix", "sft", "dpo", "evaluate", "gate"]


def test_before_a_stage_that_is_not_there_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"child.yaml:3 round.dedupe.before: there is no stage 'mixx' in round"):
        child_of(tmp_path, "round:\n  dedupe: {before: mixx}\n")


def test_a_stage_or_round_that_a_child_takes_away_takes_its_overrides_along(tmp_path: Path) -> None:
    assert child_of(tmp_path, "round: {mix: null}\n")["overrides"] == {"1": {"gate": None}, "2": {"sft": {"epochs": 2}}}
    assert child_of(tmp_path, "rounds: 1\n")["overrides"] == {"1": {"gate": None}}


def test_a_child_may_leave_a_stage_out_of_one_round_and_keep_what_its_parent_left_out(tmp_path: Path) -> None:
    found = child_of(tmp_path, "overrides: {2: {sft: null}}\n")["overrides"]
    assert found == {"1": {"gate": None}, "2": {"sft": None, "mix": {"cap": 1}}}
