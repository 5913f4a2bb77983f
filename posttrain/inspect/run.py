"""A finished or unfinished run: its stages, their tables, and every row by its id."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.artifacts import MANIFEST, Manifest, read_manifest
from posttrain.data.rows import Message
from posttrain.errors import UserError
from posttrain.rounds.plan import STORE
from posttrain.rounds.record import PLAN, read_plan

if TYPE_CHECKING:
    import pandas

    from posttrain.chat import Renderer

FINDABLE = ("rows", "pairs", "preferences", "responses", "prompts", "documents")
"""Tables whose rows have ids, in the order a prefix is looked for."""
NAMED = 8
"""Names an error lists before it stops."""


@dataclass(frozen=True)
class Stage:
    """A finished stage of a run."""

    id: str
    name: str
    round: int
    folder: Path
    manifest: Manifest

    @property
    def tables(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.parquet"))


@dataclass(frozen=True)
class Found:
    """A row, the table and the stage it stands in."""

    table: str
    stage: Stage
    row: Any


@dataclass(frozen=True)
class Run:
    """A run's finished stages, in the order they ran."""

    root: Path
    stages: tuple[Stage, ...]
    plan: dict[str, Any] = field(repr=False)

    def stage(self, name: str) -> Stage:
        """The finished stage of that id, or the first of that name. Raises UserError naming the nearest."""
        for one in self.stages:
            if name in (one.id, one.name):
                return one
        known = dict.fromkeys([*(one.name for one in self.stages), *(one.id for one in self.stages)])
        raise UserError(f"{self.root} has no finished stage {name!r}{nearest(name, known)}")

    def having(self, table: str, stage: str | None = None) -> list[Stage]:
        """The stages that wrote `table`; `stage` narrows to an id or name. Raises UserError when there is none."""
        if stage is not None:
            self.stage(stage)
        found = [s for s in self.stages if table in s.tables and (stage is None or stage in (s.id, s.name))]
        if not found:
            of = [s for s in self.stages if stage is None or stage in (s.id, s.name)]
            known = sorted({name for s in of for name in s.tables})
            where = f"of {stage} " if stage else ""
            raise UserError(f"{self.root} has no finished table {table!r} {where}yet; tables are {_few(known)}")
        return found

    def rows(self, table: str, stage: str | None = None) -> Iterator[Any]:
        """The rows of a table of all stages that wrote one, or of one stage, as `posttrain.data.rows` types."""
        from posttrain.data.tables import iter_table

        for one in self.having(table, stage):
            yield from iter_table(one.folder, table)

    def frame(self, table: str, stage: str | None = None) -> "pandas.DataFrame":
        """A table as a pandas DataFrame with a column `stage`.

        Responses get their prompt's `capability`, `language` and `source`, and a column for every scorer.
        """
        pandas = imported("pandas")
        from posttrain.data.tables import TABLES, iter_table

        columns = [item.name for item in fields(TABLES[table])]
        records = [
            {name: getattr(row, name) for name in columns} | {"stage": one.id}
            for one in self.having(table, stage)
            for row in iter_table(one.folder, table)
        ]
        if table == "responses":
            about = {id: {name: getattr(p, name) for name in ABOUT} for id, p in self.prompts.items()}
            records = [r | about.get(r["prompt_id"], {}) | self.scores.get(r["id"], {}) for r in records]
        return pandas.DataFrame(records)

    @cached_property
    def prompts(self) -> dict[str, Any]:
        """Prompt id → prompt, over all stages."""
        having = any("prompts" in stage.tables for stage in self.stages)
        return {prompt.id: prompt for prompt in self.rows("prompts")} if having else {}

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """Response id → scorer → value, over all stages."""
        values: dict[str, dict[str, float]] = {}
        if any("scores" in stage.tables for stage in self.stages):
            for score in self.rows("scores"):
                values.setdefault(score.response_id, {})[score.scorer] = score.value
        return values

    @cached_property
    def scorers(self) -> list[str]:
        """The names of all scorers."""
        return sorted({scorer for values in self.scores.values() for scorer in values})

    def find(self, prefix: str) -> Found:
        """The row whose id begins with `prefix`. Raises UserError when there is none, or several different ones."""
        if not prefix:
            raise UserError("the id of a row is empty; give at least its first characters")
        found = [hit for id, hit in self.index.items() if id.startswith(prefix)]
        if not found:
            near = max(self.index, key=lambda id: _shared(id, prefix), default="")
            hint = f"the nearest is {near}" if near[:1] == prefix[:1] else "ids are hexadecimal"
            raise UserError(
                f"no row of {self.root} has an id that begins with {prefix!r}; {hint}; "
                f"`posttrain show {self.root}` lists rows"
            )
        if len(found) > 1:
            ids = _few([hit.row.id for hit in found])
            raise UserError(f"{prefix!r} is the beginning of {len(found)} ids ({ids}); give more characters")
        return found[0]

    @cached_property
    def _places(self) -> dict[str, list[Found]]:
        """Id → every place the row stands in, by table as in FINDABLE, last first, then in the order of the stages."""
        from posttrain.data.tables import iter_table

        known: dict[str, list[Found]] = {}
        for table in reversed(FINDABLE):
            for stage in self.stages:
                if table in stage.tables:
                    for row in iter_table(stage.folder, table):
                        known.setdefault(row.id, []).append(Found(table, stage, row))
        return known

    @cached_property
    def index(self) -> dict[str, Found]:
        """Every row with an id; of a row that stands in several tables (selected, then mixed), the first one made."""
        return {id: found[0] for id, found in self._places.items()}

    def places(self, row_id: str) -> list[str]:
        """Ids of the stages in whose tables the row stands, in the order they ran."""
        return list(dict.fromkeys(found.stage.id for found in self._places.get(row_id, ())))

    @cached_property
    def rejects(self) -> dict[str, list[tuple[str, Any]]]:
        """Row id → the stages that left the row out, each with its record of why."""
        from posttrain.data.tables import iter_table

        found: dict[str, list[tuple[str, Any]]] = {}
        for stage in self.stages:
            if "rejects" in stage.tables:
                for reject in iter_table(stage.folder, "rejects"):
                    found.setdefault(reject.place, []).append((stage.id, reject))
        return found

    def parents(self, found: Found) -> list[Found]:
        """The rows it was made from, responses before prompts, each once."""
        ids = [*getattr(found.row, "parents", ()), getattr(found.row, "prompt_id", "")]
        hits = [self.index[parent] for parent in dict.fromkeys(ids) if parent in self.index and parent != found.row.id]
        return sorted(hits, key=lambda hit: FINDABLE.index(hit.table))

    def siblings(self, response: Any) -> list[Any]:
        """All responses of the stage that made this one, to the same prompt, by index."""
        return self.of_prompt.get((self.index[response.id].stage.id, response.prompt_id), [])

    @cached_property
    def of_prompt(self) -> dict[tuple[str, str], list[Any]]:
        """Stage and prompt → its responses by index."""
        groups: dict[tuple[str, str], list[Any]] = {}
        for stage in self.stages:
            if "responses" in stage.tables:
                for response in self.rows("responses", stage.id):
                    groups.setdefault((stage.id, response.prompt_id), []).append(response)
        return {key: sorted(group, key=lambda response: response.index) for key, group in groups.items()}

    @cached_property
    def renderer(self) -> "Renderer":
        """That of the newest checkpoint, else of a model from outside. Raises UserError where there is neither."""
        from posttrain.chat import Renderer

        return Renderer.from_pretrained(_tokenizer(self))


ABOUT = ("capability", "language", "source")
"""What a response has from its prompt."""


def load(path: str | Path) -> Run:
    """Open the root of a run. Raises UserError when it is none."""
    root = Path(path)
    plan = read_plan(root)
    entries = [(entry, root / STORE / entry["folder"]) for entry in plan["stages"]]
    stages = [
        Stage(entry["id"], entry["name"], entry["round"], folder, manifest)
        for entry, folder in entries
        if (folder / MANIFEST).exists() and (manifest := read_manifest(folder)) is not None
    ]
    return Run(root, tuple(stages), plan)


def load_at(path: str | Path) -> tuple[Run, str | None]:
    """A run's root; or one artifact: the run it lies in and the stage's id. Raises UserError when it is neither."""
    folder = Path(path)
    if (folder / PLAN).is_file():
        return load(folder), None
    manifest = read_manifest(folder)
    if manifest is None:
        there = [item.name for item in folder.parent.iterdir()] if folder.parent.is_dir() else []
        near = difflib.get_close_matches(folder.name, [name for name in there if name != folder.name], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{folder} is neither a run nor a finished artifact: it has no {PLAN} and no {MANIFEST}{hint}")
    folder = folder.resolve()
    if (folder.parent.parent / PLAN).is_file():
        run = load(folder.parent.parent)
        for stage in run.stages:
            if stage.folder.resolve() == folder:
                return run, stage.id
    return Run(folder, (Stage(folder.name, folder.name, 0, folder, manifest),), {}), None


def messages_of(row: Any) -> tuple[Message, ...]:
    """The conversation of a row: a pair's is that of its chosen answer. Raises UserError for a row without messages."""
    if hasattr(row, "chosen"):
        return (*row.prompt, *row.sides[0])
    if hasattr(row, "messages"):
        return tuple(row.messages)
    raise UserError(f"row {row.id} is a {type(row).__name__.lower()}, which has no conversation of its own")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean sft?`, else a list of what there is."""
    known = list(known)
    if close := difflib.get_close_matches(name, known, 1):
        return f"; did you mean {close[0]}?"
    return f"; there are {_few(known)}" if known else ""


def _shared(first: str, second: str) -> int:
    """How many characters both begin with."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) or "none") + more


def imported(package: str) -> Any:
    """An optional package, or a UserError with the line that installs it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise UserError(f"this needs {name}: pip install 'posttrain[notebooks]', or {name} alone") from error


def _tokenizer(run: Run) -> Path:
    """A folder of the run that holds a tokenizer."""
    for stage in reversed(run.stages):
        if (stage.folder / "tokenizer_config.json").is_file():
            return stage.folder
    for stage in reversed(run.stages):
        for parent in _sources(stage.manifest.parents):
            if (Path(parent) / "tokenizer_config.json").is_file():
                return Path(parent)
    raise UserError(f"{run.root} has no checkpoint yet, and so no tokenizer to render with; run a training stage first")


def _sources(parents: Any) -> Iterator[str]:
    for value in parents.values():
        for item in value if isinstance(value, list) else [value]:
            if "source" in item:
                yield item["source"]
