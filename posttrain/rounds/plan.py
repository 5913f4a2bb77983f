"""The plan: every stage of every round with its inputs, key and estimate, before anything runs.

A stage's key = its module and version + its semantic config + its seed + the keys of its parents and the fingerprints
of what comes from outside. So the whole plan has keys before anything runs, and a finished artifact is found by key.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.artifacts import CHECKPOINTS, JOURNAL, PART, Manifest, read_manifest
from posttrain.config import Config, semantic
from posttrain.data.rows import canonical_json
from posttrain.errors import RecipeError, UserError
from posttrain.estimate import process_memory
from posttrain.rounds.code import source_hash
from posttrain.rounds.launch import check_launcher
from posttrain.rounds.recipe import Recipe, StageEntry
from posttrain.rounds.sources import data_source, existing, file_source, model_source
from posttrain.stages import External, Size, StageSpec
from posttrain.train.prepare_spec import PrepareConfig

STORE = "store"
"""Folder below the root that holds the artifacts under their keys."""


@dataclass(frozen=True, eq=False)
class Node:
    """One stage of one round in the plan."""

    id: str
    """`setup/heldout`, `round-1/sft`, `round-2/evaluate-dpo`."""
    round: int
    name: str
    spec: StageSpec
    config: Config
    inputs: dict[str, Any]
    """Name → Node, External, or a list of them."""
    seed: int
    size: Size
    key: str
    kinds: tuple[str, ...] = ()
    """What it provides."""

    @property
    def folder_name(self) -> str:
        return f"{self.id.replace('/', '-')}-{self.key[:12]}"

    @property
    def parents(self) -> list["Node"]:
        return [item for item in flat(self.inputs) if isinstance(item, Node)]

    @property
    def source_hash(self) -> str:
        """Hash of the code that makes it."""
        return source_hash(self.spec.module, *self.spec.loads(self.config))

    def provides(self, kind: str) -> bool:
        return kind in self.kinds


@dataclass(frozen=True)
class Plan:
    """All nodes, in the order they run."""

    recipe: Recipe
    path: Path
    nodes: tuple[Node, ...]
    final: Node | None = None
    """The checkpoint that the last round ends with."""


def flat(inputs: Mapping[str, Any]) -> list[Any]:
    """Every single input, lists opened."""
    return [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]


def make_plan(recipe: Recipe, path: Path) -> Plan:
    """Wire all stages. Raises RecipeError with the recipe's faults and those that only wiring can find."""
    scope = _Scope(recipe)
    problems = list(recipe.problems)
    for name, source in recipe.models.items():
        try:
            scope.externals[name] = model_source(name, source, recipe.tree.folders)
        except UserError as error:
            problems.append(f"{recipe.tree.where(('models', name))} {error}")
            scope.externals[name] = External(source.path, "missing", Size())
    for number, entries in enumerate((recipe.setup, *recipe.by_round)):
        scope.begin(number)
        for entry in entries:
            found = dict.fromkeys(scope.add(entry))
            problems += [f"{recipe.tree.where(entry.keys)} {'.'.join(entry.keys)}: {problem}" for problem in found]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return Plan(recipe, path, tuple(scope.nodes), scope.end_of_round(recipe.rounds))


class _Missing(UserError):
    """Something that a stage needs is made by no stage; it may be one that a fault of the recipe took away."""


class _Scope:
    """What exists so far, as `posttrain.stages.Scope` says; grows as stages are added."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.externals: dict[str, External] = {}
        self.nodes: list[Node] = []
        self.replaced: set[tuple[str, str]] = set()
        self.round, self.name, self.instance = 0, "", ""

    def begin(self, number: int) -> None:
        self.round = number

    def add(self, entry: StageEntry) -> list[str]:
        """Wire one stage, or each of its instances, append it and return its faults.

        A faulty stage is appended without inputs, so that the stages after it are judged by their own faults.
        """
        self.name, self.instance = entry.name, ""
        problems = []
        for instance in entry.spec.expand(entry.config, self) if entry.spec.expand else [""]:
            self.instance = instance
            try:
                wired = entry.spec.wire(entry.config, self)
                check_launcher(entry.config, self.recipe.machine, self.recipe.tree.folders)
                inputs = {name: value for name, value in wired.items() if value is not None}
                self.nodes.append(self._node(entry, inputs))
                kinds = entry.spec.replaces(entry.config)
                self.replaced |= {(node.id, kind) for node in self.nodes[-1].parents for kind in kinds}
            except UserError as error:
                known = isinstance(error, _Missing) and self.recipe.problems
                problems += [] if known else [str(error)]
                self.nodes.append(self._node(entry, {}, Size()))
            except ArithmeticError:
                problems.append("its numbers are too large to be estimated")
        return problems

    def _node(self, entry: StageEntry, inputs: dict[str, Any], size: Size | None = None) -> Node:
        name = f"{entry.name}-{self.instance}" if self.instance else entry.name
        place = f"round-{self.round}" if self.round else "setup"
        seed = int(hashlib.sha256(f"{self.recipe.seed}:{place}:{name}".encode()).hexdigest()[:8], 16) % 2**31
        sizes = {key: [i.size for i in v] if isinstance(v, list) else v.size for key, v in inputs.items()}
        size = size or self._estimate(entry, sizes)
        key = _key(entry, inputs, seed, place)
        part = entry.spec.part(entry.config, self.instance)
        kinds = (part,) if part else entry.spec.provides(entry.config)
        return Node(f"{place}/{name}", self.round, name, entry.spec, entry.config, inputs, seed, size, key, kinds)

    def _estimate(self, entry: StageEntry, sizes: Mapping[str, Any]) -> Size:
        """What the spec says, and the process itself where a model runs on the CPU."""
        size = entry.spec.estimate(entry.config, sizes, self.recipe.machine)
        return replace(size, memory=size.memory + process_memory(self.recipe.machine)) if size.memory else size

    def newest(self, kind: str, optional: bool = False) -> Node | None:
        found = self.all_rounds(kind)
        if not found and not optional:
            raise _Missing(f"needs {kind.replace('_', ' ')}, and no stage before it makes any")
        return found[-1] if found else None

    def this_round(self, kind: str) -> list[Node]:
        return [node for node in self.all_rounds(kind) if node.round == self.round]

    def all_rounds(self, kind: str) -> list[Node]:
        return [node for node in self.nodes if node.provides(kind) and (node.id, kind) not in self.replaced]

    def model(self, name: str, served: bool = False) -> Node | External:
        if name == "previous":
            before = [node for node in map(self.end_of_round, range(1, self.round)) if node]
            return before[-1] if before else self.model("base", served)
        made = [
            node
            for node in self.nodes
            if node.round == self.round and node.name == name and node.provides("checkpoint")
        ]
        if made:
            return made[-1]
        prepared = [node for node in self.nodes if isinstance(node.config, PrepareConfig) and node.config.model == name]
        if prepared:
            return prepared[-1]
        if name in self.externals:
            if self.externals[name].served and not served:
                raise UserError(f"model {name!r} is behind an endpoint, and the model's own files are needed here")
            return self.externals[name]
        raise _Missing(
            f"there is no model {name!r}: neither a checkpoint made before it in this round "
            f"nor one of models: {', '.join(self.externals)}"
        )

    def file(self, path: str) -> External:
        return file_source(path, self.recipe.tree.folders)

    def expected_file(self, path: str) -> External | None:
        return self.file(path) if existing(path, self.recipe.tree.folders) else None

    def data(self, name: str, revision: str | None = None) -> External:
        return data_source(name, revision, self.recipe.tree.folders)

    def end_of_round(self, number: int) -> Node | None:
        """The last checkpoint made in a round."""
        made = [node for node in self.nodes if node.round == number and node.provides("checkpoint")]
        return made[-1] if made else None


def _key(entry: StageEntry, inputs: dict[str, Any], seed: int, place: str) -> str:
    def of(item: Any) -> Any:
        return (
            [of(i) for i in item]
            if isinstance(item, list)
            else item.key
            if isinstance(item, Node)
            else item.fingerprint
        )

    parts = [
        entry.spec.module,
        entry.spec.version,
        semantic(entry.config),
        seed,
        place,
        {k: of(v) for k, v in inputs.items()},
    ]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def artifact(node: Node, root: Path) -> Path:
    """Where the node's artifact stands, or will."""
    return root / STORE / node.folder_name


def parents_record(node: Node, root: Path) -> dict[str, Any]:
    """What a manifest says of its parents: key and content of artifacts, source and fingerprint of the rest."""

    def of(item: Any) -> Any:
        if isinstance(item, list):
            return [of(i) for i in item]
        if isinstance(item, External):
            return {"source": item.source, "fingerprint": item.fingerprint}
        manifest = read_manifest(artifact(item, root))
        return {"key": item.key, "id": item.id, "content": manifest.content if manifest else None}

    return {name: of(value) for name, value in node.inputs.items()}


def state(node: Node, root: Path, plan: Plan) -> str:
    """`reuse`, `run`, `resume` (some chunks are done), `code changed`, or `broken: …`.

    Reused is a finished artifact of that key whose parents' recorded content is what is there.
    """
    folder = artifact(node, root)
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        return f"broken: {error}"
    if manifest is None:
        part = folder.with_name(folder.name + PART)
        begun = any(part.glob(f"*{JOURNAL}")) or any(part.glob(f"{CHECKPOINTS}/step-*"))
        return "resume" if begun else "run"
    if not _parents_unchanged(node, manifest, root):
        return "run"
    if manifest.source_hash != node.source_hash:
        return "code changed"
    return "reuse"


def _parents_unchanged(node: Node, manifest: Manifest, root: Path) -> bool:
    try:
        return manifest.key == node.key and canonical_json(_contents(manifest.parents)) == canonical_json(
            _contents(parents_record(node, root))
        )
    except UserError:
        return False


def _contents(parents: dict[str, Any]) -> dict[str, Any]:
    """The content hashes and fingerprints alone: a moved model folder is the same model."""

    def of(item: Any) -> Any:
        return [of(i) for i in item] if isinstance(item, list) else item.get("content", item.get("fingerprint"))

    return {name: of(value) for name, value in parents.items()}


def runs(node_state: str, recipe: Recipe) -> bool:
    """Whether a node in this state is to be computed."""
    if node_state == "code changed":
        return recipe.on_code_change == "rerun"
    return node_state != "reuse"


def as_dict(plan: Plan, root: Path) -> dict[str, Any]:
    """The plan as JSON values, for `plan --json` and `plan.json`."""
    return {
        "name": plan.recipe.name,
        "rounds": plan.recipe.rounds,
        "root": str(root),
        "final": plan.final.id if plan.final else None,
        "stages": [_node_dict(node, root, plan) for node in plan.nodes],
    }


def _node_dict(node: Node, root: Path, plan: Plan) -> dict[str, Any]:
    def of(item: Any) -> Any:
        return [of(i) for i in item] if isinstance(item, list) else item.id if isinstance(item, Node) else item.source

    return {
        "id": node.id, "round": node.round, "name": node.name, "stage": node.spec.module, "key": node.key,
        "seed": node.seed, "state": state(node, root, plan), "inputs": {k: of(v) for k, v in node.inputs.items()},
        "config": node.config.model_dump(mode="json"),
        "expected": asdict(node.size),
    }  # fmt: skip
