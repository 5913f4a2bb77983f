"""A recipe: strictly typed, all its faults reported at once, with line and nearest valid key."""

import difflib
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from posttrain.config import Config
from posttrain.endpoint import Endpoint
from posttrain.errors import RecipeError, UserError
from posttrain.machine import Machine
from posttrain.rounds.pipeline import STAGES
from posttrain.rounds.tree import Keys, Tree, load_tree
from posttrain.rounds.values import Values, merge
from posttrain.stages import StageSpec, load_spec
from posttrain.train.prepare_spec import Template, ToolsIn

PREPARE = "posttrain.train.prepare"
MAPPING = re.compile(r"a valid dictionary( or instance of \w+)?")
"""What pydantic calls a mapping."""
PREPARED = ("template", "date", "tools_in")
"""Keys of a model that `PREPARE` writes into a checkpoint of its own before the run's first stage."""


class ModelSource(Endpoint):
    """Where a model comes from: a `path`, in YAML also as a plain string, or an `endpoint` that serves it."""

    path: str = ""
    """`tiny/base` and `tiny/teacher` come with the package; else a folder (seen from the recipe), else a hub name."""
    revision: str | None = None
    """Commit or tag of a hub model, or whatever tells versions of a served model apart. None takes what the hub serves,
    and the plan says that it is not pinned."""
    parameters: int = Field(0, ge=0)
    """For estimates only, where neither config.json nor a size in the name (`8B`) tells; 0 asks those."""
    template: Template | None = None
    """The chat template it gets (docs/chat.md), needed for a base model without one; None keeps its own. With this key,
    `date` or `tools_in`, the run begins with a stage that links the weights beside a tokenizer that says so."""
    date: str | None = Field(None, min_length=1, max_length=40)
    """What its template prints as today, such as `26 Jul 2024`; None leaves the template's own."""
    tools_in: ToolsIn = "user"
    """The turn in which its template lists tools with a schema."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_place(self) -> "ModelSource":
        if bool(self.path) == bool(self.endpoint):
            raise ValueError("name either the path of a model or the endpoint that serves it")
        stray = sorted(self.model_fields_set & (Endpoint.model_fields.keys() - {"endpoint"}))
        if self.path and stray:
            raise ValueError(f"{stray[0]} goes with an endpoint, and here is a path")
        held = sorted(self.model_fields_set & {*PREPARED})
        if self.endpoint and held:
            raise ValueError(f"{held[0]} goes with a path, and here is an endpoint, which has a template of its own")
        if self.endpoint and not self.model:
            raise ValueError("model is missing: the name that the endpoint knows the model by")
        return self

    @property
    def served(self) -> Endpoint | None:
        """The endpoint's part, or None for a path."""
        fields = {name: getattr(self, name) for name in Endpoint.model_fields}
        return Endpoint(**fields) if self.endpoint else None

    @property
    def prepared(self) -> dict[str, Any]:
        """What a checkpoint of its own is to be made with; empty where the model is taken as it is."""
        told = {name: getattr(self, name) for name in (*PREPARED, "revision")}
        return told if self.model_fields_set & {*PREPARED} else {}


class RecipeFile(Config):
    """The keys of a recipe. `setup` and `round` map stage names to their configs, in the order they run."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Also the name of the default root, `runs/<name>`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Every stage's seed is derived from it."""
    models: dict[str, ModelSource] = Field(min_length=1)
    """`base` is what round 1 starts from; the others are named by stages."""
    prompts: dict[str, dict[str, Any]] = {}
    """The prompt pool by capability: given to every stage that has a `prompts` field."""
    setup: dict[str, dict[str, Any]] = {}
    """Stages that run once, before the rounds."""
    round: dict[str, dict[str, Any]] = Field(min_length=1)
    """Stages of each round."""
    rounds: int = Field(1, ge=1, le=100)
    """How many rounds."""
    overrides: dict[int, dict[str, dict[str, Any] | None]] = {}
    """Round number → stage → what differs there; a null stage is left out of that round."""
    machine: Machine = Machine()
    """What it runs on; changes no result's key."""
    on_code_change: Literal["reuse", "rerun"] = "reuse"
    """What to do with a finished stage whose source code has changed since."""


@dataclass(frozen=True)
class StageEntry:
    """One stage of one round, resolved."""

    name: str
    spec: StageSpec
    config: Config
    keys: Keys
    """Where it stands in the recipe, for messages."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that has passed all checks that need no files."""

    name: str
    seed: int
    models: dict[str, ModelSource]
    rounds: int
    machine: Machine
    on_code_change: Literal["reuse", "rerun"]
    setup: tuple[StageEntry, ...]
    by_round: tuple[tuple[StageEntry, ...], ...]
    """Stages of round 1, of round 2, …"""
    tree: Tree
    problems: tuple[str, ...] = ()
    """Faults found so far, when the caller wants to add the plan's before raising them all."""


def load_recipe(path: Path, sets: list[str] | None = None) -> Recipe:
    """Read and check a recipe. Faults of single values are kept in `problems` where the rest can still be planned.

    Raises RecipeError or UserError when it cannot.
    """
    tree = load_tree(path, sets or [])
    problems: list[str] = []
    file = _validate(RecipeFile, tree.values, (), tree, problems)
    if file is None:
        raise RecipeError(problems)
    for number in file.overrides:
        if not 1 <= number <= file.rounds and tree.values.get("rounds", 1) == file.rounds:
            problems.append(f"{tree.where(('overrides', str(number)))} overrides.{number}: there is no such round")
    setup = (*_prepared(file), *_entries(file.setup, {}, "setup", file, tree, problems))
    by_round = []
    for number in range(1, file.rounds + 1):
        changes = file.overrides.get(number, {})
        for stage in changes.keys() - tree.values["round"].keys():
            keys = ("overrides", str(number), stage)
            problems.append(f"{tree.where(keys)} {'.'.join(keys)}: unknown stage{_nearest(stage, list(file.round))}")
        by_round.append(_entries(file.round, changes, "round", file, tree, problems, str(number)))
    return Recipe(
        file.name, file.seed, dict(file.models), file.rounds, file.machine, file.on_code_change,
        setup, tuple(by_round), tree, tuple(dict.fromkeys(problems)),
    )  # fmt: skip


def _prepared(file: RecipeFile) -> Iterator[StageEntry]:
    """A stage for each model that is to have another template than its own."""
    spec = load_spec(PREPARE)
    for name, source in file.models.items():
        if source.prepared:
            config = spec.Config.model_validate({"model": name, **source.prepared})
            yield StageEntry(f"prepare-{name}", spec, config, ("models", name))


def _entries(
    stages: dict[str, dict[str, Any]], changes: dict[str, dict[str, Any] | None], section: str,
    file: RecipeFile, tree: Tree, problems: list[str], number: str = "",
) -> tuple[StageEntry, ...]:  # fmt: skip
    entries = []
    for name, values in stages.items():
        change = changes.get(name, {})
        if change is None:
            continue
        plain, resolved = _copy(values), _copy(values)
        merge(resolved, _copy(change))
        module = resolved.pop("stage", STAGES.get(name))
        plain.pop("stage", None)
        keys = (section, name)
        if not isinstance(module, str):
            problems.append(f"{tree.where(keys)} {section}.{name}: unknown stage{_nearest(name, list(STAGES))}")
            continue
        try:
            spec = load_spec(module)
        except UserError as error:
            problems.append(f"{tree.where(keys)} {section}.{name}: {error}")
            continue
        if "prompts" in spec.Config.model_fields:
            for stage in (plain, resolved):
                stage["prompts"] = _merged(file.prompts, stage.get("prompts", {}))
        override = ("overrides", number, name) if change else ()
        config = _validate(spec.Config, resolved, keys, tree, problems, override, plain)
        entries += [StageEntry(name, spec, config, keys)] if config is not None else []
    return tuple(entries)


def _merged(base: dict[str, Any], changes: Any) -> dict[str, Any]:
    result = _copy(base)
    merge(result, _copy(changes) if isinstance(changes, dict) else {})
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


Model = typing.TypeVar("Model", bound=BaseModel)


def _validate(
    model: type[Model], values: Values, at: Keys, tree: Tree, problems: list[str], override: Keys = (),
    plain: Values | None = None,
) -> Model | None:  # fmt: skip
    """Check values against a model. Faulty optional keys are reported, dropped, and the rest is checked again.

    `plain` is what the values are without their `override`, for the faults that stand there already.
    """
    checked, faults = _checked(model, values)
    if not faults:
        return checked
    older = [(fault["loc"], fault["msg"]) for fault in _checked(model, plain or {})[1]] if override else []
    for fault in faults:
        own = () if (fault["loc"], fault["msg"]) in older else override
        problems.append(_describe(model, fault, at, tree, own))
    reduced = _copy(values)
    for fault in faults:
        _drop(reduced, fault["loc"])
    return _checked(model, reduced)[0]


def _checked(model: type[Model], values: Values) -> tuple[Model | None, list[Any]]:
    """The values as a model, or what is wrong with them."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False, include_context=False))
    except RecursionError:
        return None, [{"loc": (), "msg": "Nested too deeply", "type": "recursion", "input": "..."}]


def _describe(model: type[BaseModel], fault: Any, at: Keys, tree: Tree, override: Keys) -> str:
    keys = tuple(str(part) for part in fault["loc"])
    place = (*at, *keys)
    if override and (*override, *keys) in tree.lines:
        place = (*override, *keys)
    elif at and keys[:1] == ("prompts",):
        place = keys
    path = ".".join(place)
    if fault["type"] == "extra_forbidden":
        return f"{tree.where(place)} {path}: unknown key{_nearest(keys[-1], _valid_keys(model, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"{tree.where(place)} {path}: is missing"
    if fault["type"] == "value_error":  # a sentence of ours, which says what it got
        return f"{tree.where(place)} {path}: {fault['msg'].removeprefix('Value error, ')}"
    message = MAPPING.sub("a mapping of keys", fault["msg"][0].lower() + fault["msg"][1:])
    return f"{tree.where(place)} {path}: {message}, got {_short(fault['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, 1, 0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid are {', '.join(valid)}" if valid else ""


def _valid_keys(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """The keys of the model at `loc` below `model`, as a recipe writes them; empty where it is not a model."""
    for part in loc:
        model = _below(model, part)
    return [info.alias or name for name, info in model.model_fields.items()] if _is_model(model) else []


def _below(model: Any, part: Any) -> Any:
    if _is_model(model):
        field = model.model_fields.get(part)
        return field.annotation if field else None
    for option in typing.get_args(model):
        if typing.get_origin(model) in (typing.Union, types.UnionType):
            inner = _below(option, part)
            if inner is not None:
                return inner
    return typing.get_args(model)[-1] if typing.get_origin(model) in (dict, list, tuple) else None


def _is_model(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _drop(values: Any, loc: tuple[Any, ...]) -> None:
    """Remove the faulty value, or the nearest one above it that exists; of a faulty key, what stands there."""
    loc = loc[:-1] if loc[-1:] == ("[key]",) else loc
    for part in loc[:-1]:
        if not (isinstance(values, dict) and part in values and isinstance(values[part], dict)):
            break
        values = values[part]
        loc = loc[1:]
    if isinstance(values, dict) and loc:
        values.pop(loc[0], None)
