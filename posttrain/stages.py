"""What a stage is: a function from folders to a folder, with a torch-free description beside it.

`reward/sample.py` has `run(job)`; `reward/sample_spec.py` has `SPEC`. The plan reads specs only; the worker imports
the stage. Both are found by the dotted name, so a user's own stage needs no registration.
"""

import importlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from posttrain.artifacts import Journal
from posttrain.config import Config
from posttrain.endpoint import Endpoint, Price
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Launch, Machine

Input = Any
"""A `Node` of the plan, an `External`, or a list of them."""


@dataclass(frozen=True)
class External:
    """Something from outside the run: a model folder, a hub name, a file.

    `fingerprint` is a hash of the content, or the hub revision; it enters the keys of what is made from it.
    `size` is what the plan knows of it, for estimates. `served` is how a model behind an endpoint is reached; its
    `source` is then the model's name, so that no URL enters a manifest. `revision` pins a hub model, which a stage gets
    as the folder of just that.
    """

    source: str
    fingerprint: str
    size: "Size"
    served: Endpoint | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Amount:
    """Rows of one kind, and the tokens that stand in all of them together."""

    rows: int = 0
    tokens: int = 0

    @property
    def each(self) -> float:
        """Mean tokens of a row."""
        return self.tokens / max(1, self.rows)


@dataclass(frozen=True)
class Size:
    """What the plan expects of a stage or knows of an input; zero where it does not apply."""

    rows: int = 0
    """Rows of the artifact's main table."""
    tokens: int = 0
    """What the stage will say went through the model: the tokens it writes where it generates, else those it reads;
    where no model runs, the tokens of its rows."""
    parameters: int = 0
    """Parameters of the model that the stage runs or writes."""
    memory: int = 0
    """Peak bytes on the device."""
    seconds: float = 0.0
    """On the machine the recipe names."""
    note: str = ""
    """Shown at the end of the plan's line: `starts from base`."""
    made: Mapping[str, Amount] = field(default_factory=dict)
    """What it writes, by kind (`prompts`, `rows`; of `responses` the tokens of the answers alone), where one number of
    rows and tokens does not say it."""
    cost: float = 0.0
    """What the served models that it asks will charge, in the currency of their prices."""
    price: Price | None = None
    """Of a served model."""

    def of(self, kind: str) -> Amount:
        """What it writes of a kind."""
        return self.made.get(kind, Amount(self.rows, self.tokens))

    def charges(self, read: float, written: float) -> float:
        """What this model charges for so many tokens of prompts and answers; 0 for one that is not served."""
        return self.price.of(read, written) if self.price else 0.0


class Scope(Protocol):
    """What a spec may ask of the plan when it wires itself: what exists so far, in this round or before."""

    round: int
    """0 while `setup:` is planned."""
    name: str
    """The key under `round:` that this stage stands at, such as `sft`."""
    instance: str
    """The suffix of this instance of an expanded stage, else empty."""

    def newest(self, kind: str, optional: bool = False) -> Any:
        """The latest stage before this one that provides `kind`.

        Where none does: None with `optional`, else UserError.
        """

    def this_round(self, kind: str) -> list[Any]:
        """Every stage of this round, before this one, that provides `kind`."""

    def all_rounds(self, kind: str) -> list[Any]:
        """Every stage before this one, in any round, that provides `kind`."""

    def model(self, name: str, served: bool = False) -> Any:
        """`previous`: what the round before ended with, or base. A stage's name: its checkpoint of this round.

        Else a key of `models:`. UserError for a model behind an endpoint, unless the stage says with `served` that
        answers are all it needs.
        """

    def file(self, path: str) -> External:
        """A user's file, relative to the recipe; UserError when it is not there."""

    def expected_file(self, path: str) -> External | None:
        """A user's file that the run may have to wait for; None while it is not there."""

    def data(self, name: str, revision: str | None = None) -> External:
        """A user's file or folder, or a data set of the hub; UserError when it is none of them."""


@dataclass(frozen=True)
class StageSpec:
    """The torch-free description of a stage.

    `provides(config)` names the kinds of table or checkpoint that later stages may ask the scope for.
    `wire(config, scope)` returns the inputs by name, or raises UserError saying which stage is missing before it.
    `estimate(config, sizes, machine)` says what it will cost. `version` is raised when the same config and inputs
    would now give another result.
    """

    module: str
    version: int
    Config: type[Config]
    provides: Callable[[Any], tuple[str, ...]]
    wire: Callable[[Any, Scope], dict[str, Input]]
    estimate: Callable[[Any, Mapping[str, Any], Machine], Size]
    replaces: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Kinds for which its output stands in place of its inputs': the stages after it no longer find those."""
    expand: Callable[[Any, Scope], list[str]] | None = None
    """For a stage that runs several times a round: the suffix of each instance, `evaluate` → `evaluate-sft`.
    While an instance is wired, `scope.instance` is its suffix."""
    part: Callable[[Any, str], str] = lambda config, instance: ""
    """For such a stage: the only kind that this instance provides, where it serves another instance; else empty."""
    loads: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Of the config: modules that the stage imports by names that stand there; their code is its code too."""


@dataclass
class Job:
    """What `run(job)` gets: typed config, input folders, a folder to write into, and ways to report.

    `inputs[name]` is a Path of a finished artifact, a str for something from outside, an Endpoint for a served model,
    or a list of them.
    """

    config: Any
    inputs: dict[str, Any]
    folder: Path
    seed: int
    round: int = 1
    name: str = ""
    machine: Machine = field(default_factory=Machine)
    launch: Launch = field(default_factory=Launch)
    common: Path | None = None
    """The folder of the main process, `folder` there; the others' own `folder` is private and thrown away."""
    report: Callable[[dict[str, Any]], None] = lambda event: None
    stopping: Callable[[], bool] = lambda: False
    summary: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("posttrain.stage"))

    def __post_init__(self) -> None:
        self.common = self.common or self.folder

    @property
    def main(self) -> bool:
        """Whether this is the process whose `folder` becomes the artifact."""
        return self.launch.rank == 0

    def journal(self, name: str) -> Journal:
        return Journal(self.folder, name)

    def tell(self, done: int, total: int, unit: str, tokens: int = 0, note: str = "") -> None:
        """Say how far it is, how many tokens went through since it was last said, and what else is worth a word."""
        event = {"event": "progress", "done": done, "total": total, "unit": unit, "tokens": tokens}
        self.report(event | ({"note": note} if note else {}))

    def progress(self, done: int, total: int, unit: str, tokens: int = 0) -> None:
        """As `tell`; raises Interrupted when the run is asked to stop, so call it where stopping is safe."""
        self.tell(done, total, unit, tokens)
        if self.stopping():
            raise Interrupted(f"stopped at {done:,} of {total:,} {unit}")

    def rng(self, *parts: Any) -> random.Random:
        """A generator that depends on the stage's seed and the parts only."""
        return random.Random(":".join(map(str, (self.seed, *parts))))


def load_spec(name: str) -> StageSpec:
    """The spec of a stage by its dotted name: `reward.sample` → `reward.sample_spec.SPEC`."""
    try:
        spec = importlib.import_module(f"{name}_spec").SPEC
    except (ImportError, AttributeError) as error:
        raise UserError(f"stage {name!r}: no SPEC in module {name}_spec ({error})") from error
    if not isinstance(spec, StageSpec):
        raise UserError(f"stage {name!r}: {name}_spec.SPEC is a {type(spec).__name__}, not a StageSpec")
    return spec
