"""What an entry of a recipe's `prompts:` is: a pipeline by name and its typed fields. Torch-free.

A pipeline is `NAME.py` with `make(work)` and beside it `NAME_spec.py` with `PIPELINE`, in `synth/pipelines` or in a
user's own module. docs/synthesis.md shows how to write one.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from posttrain.artifacts import file_sha256
from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.stages import Amount, External, Job, Scope, Size
from synth.prompts import checked_templates

HOME = "synth.pipelines"
WORLD_NAME, FILE_NAME = "synth", "file"
YAML = (".yaml", ".yml")
ALIASES = {WORLD_NAME: "world"}
"""Names in recipes that are not their module's."""
FAILURES = "failures"
"""In place of a file of seeds: the prompts that the last evaluation answered wrongly."""
EVALUATION, EVALUATED = "evaluation", "evaluated"
"""Inputs of the stage where seeds are failures: the last evaluation, and the prompts of all."""
EARLIER = "earlier"
"""The input that holds all prompts made before."""
WRITTEN = "written"
"""The pipeline of entries whose `from:` is a YAML file."""


class Budget(Config):
    """What models may take for one entry of `prompts:` in one round, all of them together."""

    tokens: int | None = Field(None, ge=1)
    """Tokens that they write. None has no limit."""
    cost: float | None = Field(None, gt=0)
    """Money, in the currency of their `price:`; for teachers behind an endpoint. None has no limit."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Budget":
        if self.tokens is None and self.cost is None:
            raise ValueError("a budget has tokens, cost, or both; how many rows is said by rows:")
        return self

    def __str__(self) -> str:
        told = [f"{self.tokens:,} tokens"] if self.tokens else []
        return " and ".join([*told, *([f"{self.cost:g} in money"] if self.cost else [])])


class SourceConfig(Config):
    """What every entry of `prompts:` has; a pipeline's own config adds its fields."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    from_: str = Field(WORLD_NAME, alias="from")
    """The pipeline: `synth`, `file`, another name in `synth/pipelines`, a module of your own by its dotted name, or the
    path of a YAML file that is a pipeline of prompts only."""
    rows: int = Field(ge=1)
    """Prompts or dialogs wanted in each round; of more than these, a seeded choice."""
    templates: dict[str, str] = {}
    """Prompts for the teacher that stand in place of the pipeline's own: `general/revise` → path of a Jinja file."""

    budget: Budget | None = None
    """What a round may spend on this entry; it ends with the rows it has by then, and says so. None has no limit."""


def some_share(kinds: dict[Any, float]) -> dict[Any, float]:
    """Weights by kind, for a field's validator. Raises ValueError where one is below 0 or none above."""
    if min(kinds.values(), default=-1) < 0 or not sum(kinds.values()):
        raise ValueError("give the kinds weights of 0 or more, one of them more")
    return kinds


@dataclass(frozen=True)
class Expected:
    """What the plan expects of one source: texts asked of the teacher, tokens it reads and writes, and what is made."""

    asked: int = 0
    read: float = 0.0
    written: float = 0.0
    made: Mapping[str, Amount] = field(default_factory=dict)
    """`prompts`, `rows`, `preferences`."""


def _nothing(*given: Any) -> Mapping[str, Any]:
    return {}


def _fits_all(*given: Any) -> None:
    pass


@dataclass(frozen=True)
class PipelineSpec:
    """The torch-free description of a pipeline; `files`, `data` and `models` become inputs of the stage."""

    module: str
    version: int
    """Raised when the same config and inputs would now give another result."""
    Config: type[SourceConfig]
    estimate: Callable[[str, Any, Mapping[str, Any]], Expected]
    """Of capability, config and the sizes of its `files`."""
    templates: Callable[[str, Any], Mapping[str, tuple[str, ...]]] = _nothing
    """Of capability and config: a file of `synth/prompts` such as `general/revise` → the variables it is given."""
    files: Callable[[Any], Mapping[str, str]] = _nothing
    """Of the config: name → path of a user's file."""
    data: Callable[[Any], Mapping[str, str]] = _nothing
    """Of the config: name → path of a user's file or folder."""
    models: Callable[[Any], Mapping[str, str]] = _nothing
    """Of the config: name → key of the recipe's `models:`, or a stage's name; the teacher is always there."""
    pairs: Callable[[Any], bool] = lambda config: False
    """Whether it makes preference pairs."""
    check: Callable[[str, Any], None] = _fits_all
    """Raises ValueError for a capability (the entry's key) it cannot make."""
    depends: Callable[[Any], str] = lambda config: ""
    """Of the config: what else its result depends on, such as the version of Python."""
    look: Callable[[Any, Mapping[str, External]], None] = _fits_all
    """Looks into its `files` while the run is planned; raises UserError for what cannot be used."""


def module_of(name: str) -> str:
    """The module of a pipeline by its name in a recipe. Raises ValueError, naming what there is."""
    if name.endswith(YAML):
        return f"{HOME}.{WRITTEN}"
    if "." in name:
        return name
    known = {
        _recipe_name(path.stem.removesuffix("_spec")) for path in Path(__file__).parent.glob("pipelines/*_spec.py")
    }
    known -= {WRITTEN}
    if name not in known:
        raise ValueError(
            f"there is no pipeline {name!r}; there are {', '.join(sorted(known))}, a module of your own by its dotted "
            "name, or the path of a .yaml"
        )
    return f"{HOME}.{ALIASES.get(name, name)}"


def _recipe_name(stem: str) -> str:
    return {module: name for name, module in ALIASES.items()}.get(stem, stem)


def pipeline_spec(name: str) -> PipelineSpec:
    """The spec of a pipeline by its name in a recipe. Raises ValueError where there is none."""
    module = module_of(name)
    try:
        found = importlib.import_module(f"{module}_spec").PIPELINE
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no PIPELINE in module {module}_spec ({error})") from error
    if not isinstance(found, PipelineSpec):
        raise ValueError(f"{module}_spec.PIPELINE is a {type(found).__name__}, not a PipelineSpec")
    return found


def pipeline_module(name: str) -> ModuleType:
    """The module with `make(work)`. Raises UserError where it has none."""
    module = importlib.import_module(module_of(name))
    if not callable(getattr(module, "make", None)):
        raise UserError(f"{module.__name__} has no make(work); write one, see docs/synthesis.md")
    return module


def typed(value: Any) -> SourceConfig:
    """An entry of `prompts:` as its pipeline's config. Raises ValueError; unknown keys with the nearest valid one."""
    if isinstance(value, SourceConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError("an entry is a mapping with `from:` and `rows:`")
    name = value.get("from", value.get("from_", WORLD_NAME))
    if not isinstance(name, str):
        raise ValueError("`from:` is the name of a pipeline or the path of a .yaml")
    config = pipeline_spec(name).Config
    valid = [info.alias or key for key, info in config.model_fields.items()]
    unknown = [key for key in value if key not in valid and key not in config.model_fields]
    if unknown:
        raise ValidationError.from_exception_data(
            config.__name__, [_unknown(str(key), value[key], name, valid) for key in unknown]
        )
    return config.model_validate(value)


def _unknown(key: str, value: Any, name: str, valid: list[str]) -> InitErrorDetails:
    near = difflib.get_close_matches(key, valid, 1, 0.5)
    told = f"did you mean {near[0]}?" if near else f"valid are {', '.join(valid)}"
    error = PydanticCustomError("unknown_key", "unknown key of `from: {name}`; {told}", {"name": name, "told": told})
    return InitErrorDetails(type=error, loc=(key,), input=value)


def input_name(name: str, capability: str) -> str:
    """The stage's input that holds what a source needs under this name."""
    return f"{name}-{capability}"


def fingerprint_of(spec: PipelineSpec, config: SourceConfig) -> External:
    """The pipeline itself as an input: its version, of a user's module also its files' content."""
    parts = [str(spec.version), *filter(None, [spec.depends(config)])]
    if not spec.module.startswith(f"{HOME}."):
        for name in (spec.module, f"{spec.module}_spec"):
            found = importlib.util.find_spec(name)
            if found is not None and found.origin:
                parts.append(file_sha256(Path(found.origin))[:16])
    return External(spec.module, ":".join(parts), Size())


def takes_failures(config: SourceConfig) -> bool:
    """Whether one of its files is, in the recipe's words, the failures of the last evaluation."""
    return FAILURES in pipeline_spec(config.from_).files(config).values()


def failures(job: Job) -> tuple[Path, list[Path]]:
    """The folders of the last evaluation and of all evaluation prompts."""
    return Path(job.inputs[EVALUATION]), [Path(folder) for folder in job.inputs[EVALUATED]]


def _there(scope: Scope, path: str) -> External:
    """A file or folder of the user's. Raises UserError where the plan would take a missing one for a hub's data set."""
    found = scope.data(path)
    if not Path(found.source).exists():
        raise UserError(f"{path} is not there; name a folder or file, seen from the recipe")
    return found


def wire_source(capability: str, config: SourceConfig, scope: Scope) -> dict[str, Any]:
    """The inputs of one source by name. Raises UserError for a missing file or model and for faulty templates."""
    spec = pipeline_spec(config.from_)
    files = {name: path for name, path in spec.files(config).items() if path != FAILURES}
    inputs: dict[str, Any] = {name: scope.file(path) for name, path in files.items()}
    spec.look(config, inputs)
    inputs |= {name: _there(scope, path) for name, path in spec.data(config).items()}
    inputs |= {name: scope.model(model, served=True) for name, model in spec.models(config).items()}
    own = {name: scope.file(path) for name, path in config.templates.items()}
    inputs["templates"] = checked_templates(spec.templates(capability, config), own)
    inputs["pipeline"] = fingerprint_of(spec, config)
    return {input_name(name, capability): value for name, value in inputs.items()}
