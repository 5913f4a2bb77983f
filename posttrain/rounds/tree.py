"""YAML to plain values that remember their lines; parents by `extends:`, changes by `--set`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from posttrain.errors import RecipeError, UserError
from posttrain.rounds.pipeline import lay_over
from posttrain.rounds.shipped import find_recipe
from posttrain.rounds.values import Keys, Values

MAX_NODES = 20_000
"""Values a recipe may hold once its aliases are expanded; the shipped ones have under 200."""
MAX_DEPTH = 30
MAX_FILE_BYTES = 1 << 20

PLAIN_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
MERGE = "tag:yaml.org,2002:merge"


@dataclass
class Tree:
    """A merged recipe: `values` as plain Python, `lines` from a key's path to where it was written (`file:line`)."""

    values: Values = field(default_factory=dict)
    lines: dict[Keys, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    """Of the recipe and its parents, nearest first: where files it names are looked for."""

    def where(self, keys: Keys) -> str:
        """The place of the key, or of the nearest one above it that was written somewhere."""
        for end in range(len(keys), -1, -1):
            if keys[:end] in self.lines:
                return self.lines[keys[:end]]
        return "recipe"


def load_tree(path: Path, sets: list[str]) -> Tree:
    """Read a recipe with its parents, then apply `--set a.b.c=value` in order. Raises RecipeError or UserError."""
    tree = _with_parents(path, ())
    for assignment in sets:
        _assign(tree, assignment)
    return tree


def _with_parents(path: Path, children: tuple[Path, ...]) -> Tree:
    path = path.resolve()
    if path in children:
        circle = " → ".join("/".join(one.parts[-2:]) for one in (*children, path))
        raise UserError(f"{path.name}: `extends` goes in a circle: {circle}")
    own = read_yaml(path)
    parent_name = own.values.pop("extends", None)
    if parent_name is None:
        return own
    if not isinstance(parent_name, str):
        raise RecipeError(
            [f"{own.where(('extends',))} extends: expected the name or path of a recipe, got {parent_name!r}"]
        )
    try:
        parent = find_recipe(parent_name, path.parent)
    except UserError as error:
        raise RecipeError([f"{own.where(('extends',))} extends: {error}"]) from error
    tree = _with_parents(parent, (*children, path))
    tree.folders.insert(0, path.parent)
    tree.lines.update(own.lines)
    _lay_over(tree, own.values)
    return tree


def read_yaml(path: Path) -> Tree:
    """One file, without its parents."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(
                f"{path}: {path.stat().st_size:,} bytes is too large for a recipe (limit {MAX_FILE_BYTES:,})"
            )
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a recipe ({error})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError([_yaml_problem(path, error)]) from error
    tree = Tree(lines={(): f"{path.name}:1"}, folders=[path.parent])
    problems: list[str] = []
    values = _Builder(path.name, tree, problems).build(root, ()) if root else {}
    if not problems and not isinstance(values, dict):
        problems.append(f"{path.name}:1: a recipe is a mapping of keys, got {type(values).__name__}")
    if problems:
        raise RecipeError(problems)
    tree.values = values
    return tree


def _yaml_problem(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return f"{path.name}{line}: not valid YAML: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Without the place, in one line."""
    told = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return str(told).partition("\n")[0] or type(error).__name__


class _Builder:
    """Walks composed YAML nodes: refuses duplicate keys, too deep and too large documents, and notes lines."""

    def __init__(self, file: str, tree: Tree, problems: list[str]):
        self.file, self.tree, self.problems = file, tree, problems
        self.scalars = yaml.SafeLoader("")
        self.count = 0

    def build(self, node: yaml.Node, keys: Keys) -> Any:
        self.count += 1
        place = f"{self.file}:{node.start_mark.line + 1}"
        self.tree.lines.setdefault(keys, place)
        if self.count > MAX_NODES or len(keys) > MAX_DEPTH:
            if self.count <= MAX_NODES + 1 and not self.problems:
                self.problems.append(f"{place}: too deep or too large for a recipe")
            return None
        if node.tag.rpartition(":")[2] not in PLAIN_TAGS:
            self.problems.append(f"{place}: the tag {node.tag} is not for recipes")
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, keys))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*keys, str(index))) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _pairs(self, node: yaml.MappingNode, keys: Keys) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            place = f"{self.file}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(f"{place}: a key must be a plain word")
                continue
            key = key_node.value
            if key_node.tag == MERGE:
                self.problems.append(f"{place}: `<<` is not for recipes; write the keys out, or use `extends`")
                continue
            if key in seen:
                self.problems.append(f"{place} {'.'.join((*keys, key))}: stands twice")
            seen.add(key)
            self.tree.lines[(*keys, key)] = place
            yield key, self.build(value_node, (*keys, key))

    def _scalar(self, node: Any, place: str) -> Any:
        try:
            value = self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self.problems.append(f"{place}: {node.value!r}: {getattr(error, 'problem', None) or error}")
            return None
        return value if node.style else _float_if_scientific(value)


def _float_if_scientific(value: Any) -> Any:
    """YAML 1.1 reads `1e-5` as text; a recipe means the number, where it has no quotes."""
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _assign(tree: Tree, assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise UserError(f"--set {assignment!r}: expected a.b.c=value")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        problems: list[str] = []
        value = _Builder("--set", Tree(), problems).build(node, ()) if node else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"--set {assignment!r}: the value is not valid YAML: {_reason(error)}") from error
    if problems:
        raise RecipeError(problems)
    changes: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        changes = {key: changes}
    for end in range(1, len(keys)):
        tree.lines.setdefault(keys[:end], "--set")
    tree.lines[keys] = "--set"
    _lay_over(tree, changes)


def _lay_over(tree: Tree, changes: Values) -> None:
    problems = []
    for section, stage, before in lay_over(tree.values, changes):
        keys = (section, stage, "before")
        problems.append(f"{tree.where(keys)} {'.'.join(keys)}: there is no stage {before!r} in {section}")
    if problems:
        raise RecipeError(problems)
