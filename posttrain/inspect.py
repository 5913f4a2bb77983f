"""Looking into a run, from a notebook or the command line: its tables, and where a row came from.

from posttrain.inspect import load
run = load("runs/quickstart")
run.frame("responses", stage="round-1/sample").sort_values("reward")
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.artifacts import MANIFEST, Manifest, read_manifest
from posttrain.data.rows import Message, Row
from posttrain.errors import UserError
from posttrain.rounds.plan import STORE
from posttrain.rounds.record import PLAN, read_plan

if TYPE_CHECKING:
    import pandas

    from posttrain.chat import Renderer

FINDABLE = ("rows", "pairs", "preferences", "responses", "prompts")
"""Tables whose rows have ids, in the order a prefix is looked for."""
COLORS = {0: "#888888", 1: "#0a7d33", 2: "#b35900"}
"""Mask value → colour: context, trained, trained format token."""


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

    def having(self, table: str, stage: str | None = None) -> list[Stage]:
        """The stages that wrote `table`; `stage` narrows to an id or name. Raises UserError when there is none."""
        found = [s for s in self.stages if table in s.tables and (stage is None or stage in (s.id, s.name))]
        if not found:
            known = sorted({name for s in self.stages for name in s.tables})
            of = f" of {stage}" if stage else ""
            raise UserError(f"{self.root} has no finished table {table!r}{of}; tables are {', '.join(known)}")
        return found

    def rows(self, table: str, stage: str | None = None) -> Iterator[Any]:
        """The rows of a table of all stages that wrote one, or of one stage, as `posttrain.data.rows` types."""
        from posttrain.data.tables import iter_table

        for one in self.having(table, stage):
            yield from iter_table(one.folder, table)

    def frame(self, table: str, stage: str | None = None) -> "pandas.DataFrame":
        """A table as a pandas DataFrame with a column `stage`; responses get a column for every scorer."""
        pandas = _pandas()
        from posttrain.data.tables import TABLES, iter_table

        columns = [item.name for item in fields(TABLES[table])]
        records = [
            {name: getattr(row, name) for name in columns} | {"stage": one.id}
            for one in self.having(table, stage)
            for row in iter_table(one.folder, table)
        ]
        if table == "responses":
            records = [record | self.scores.get(record["id"], {}) for record in records]
        return pandas.DataFrame(records)

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
        found = [hit for table in FINDABLE for hit in self._matches(table, prefix)]
        ids = list(dict.fromkeys(hit.row.id for hit in found))
        if not ids:
            raise UserError(
                f"no row of {self.root} has an id that begins with {prefix!r}; `posttrain show {self.root}` lists rows"
            )
        if len(ids) > 1:
            raise UserError(
                f"{prefix!r} is the beginning of {len(ids)} ids ({', '.join(ids[:5])}); give more characters"
            )
        return found[0]

    def _matches(self, table: str, prefix: str) -> Iterator[Found]:
        from posttrain.data.tables import iter_table

        for stage in self.stages:
            if table in stage.tables:
                yield from (
                    Found(table, stage, row) for row in iter_table(stage.folder, table) if row.id.startswith(prefix)
                )

    @cached_property
    def index(self) -> dict[str, Found]:
        """Every row with an id; of a row that stands in several tables (selected, then mixed), the first one made."""
        from posttrain.data.tables import iter_table

        known: dict[str, Found] = {}
        for table in reversed(FINDABLE):
            for stage in self.stages:
                if table in stage.tables:
                    for row in iter_table(stage.folder, table):
                        known.setdefault(row.id, Found(table, stage, row))
        return known

    def parents(self, found: Found) -> list[Found]:
        """The rows it was made from, responses before prompts, each once."""
        ids = [*getattr(found.row, "parents", ()), getattr(found.row, "prompt_id", "")]
        hits = [self.index[parent] for parent in dict.fromkeys(ids) if parent in self.index and parent != found.row.id]
        return sorted(hits, key=lambda hit: FINDABLE.index(hit.table))

    def siblings(self, response: Any) -> list[Any]:
        """All responses of the stage that made this one, to the same prompt, by index."""
        stage = self.index[response.id].stage
        same = [row for row in self.rows("responses", stage.id) if row.prompt_id == response.prompt_id]
        return sorted(same, key=lambda row: row.index)


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
        raise UserError(f"{folder} is neither a run nor a finished artifact: it has no {PLAN} and no {MANIFEST}")
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
        return (*row.prompt, row.chosen)
    if hasattr(row, "messages"):
        return tuple(row.messages)
    raise UserError(f"row {row.id} is a {type(row).__name__.lower()}, which has no conversation of its own")


def segments(row: Any, renderer: "Renderer") -> list[tuple[int, str]]:
    """The rendered conversation cut where the loss mask changes: (mask value, text with control tokens)."""
    messages = messages_of(row)
    if messages[-1]["role"] == "assistant":
        rendered = renderer.conversation(list(messages), row.tools)
        ids, mask = rendered.ids, rendered.mask
    else:
        ids = renderer.prompt(list(messages), row.tools)
        mask = [0] * len(ids)
    cuts = [0, *(i for i in range(1, len(mask)) if mask[i] != mask[i - 1]), len(mask)]
    return [(mask[a], renderer.tokenizer.decode(ids[a:b])) for a, b in pairwise(cuts) if b > a]


def conversation_html(row: Row, renderer: "Renderer") -> str:
    """A conversation as HTML with the trained tokens in colour, for `IPython.display.HTML`."""
    spans = (f'<span style="color:{COLORS[mask]}">{html.escape(text)}</span>' for mask, text in segments(row, renderer))
    return f'<pre style="white-space:pre-wrap">{"".join(spans)}</pre>'


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise UserError("tables as DataFrames need pandas: pip install pandas") from error
    return pandas
