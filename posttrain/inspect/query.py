"""Choosing rows: `--where 'capability=tool_use'`, `--sort reward`, and what a name means for each table."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from posttrain.errors import UserError
from posttrain.inspect.run import ABOUT, FINDABLE, Run, nearest

CONDITION = re.compile(r"^\s*([\w.-]+?)\s*(!=|=|>=|<=|>|<|~)\s*(.*?)\s*$")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, ">": lambda a, b: a > b, "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, "~": lambda a, b: str(b) in str(a),
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """`name sign wanted`; a value that is not there fits `!=` alone."""

    name: str
    sign: str
    wanted: str

    def holds(self, run: Run, row: Any) -> bool:
        """Raises UserError for an unknown name, and for a number compared with a text."""
        got = value(run, row, self.name)
        if got is None:
            return self.sign == "!="
        if self.sign != "~" and isinstance(got, (int, float)) and not isinstance(got, bool):
            try:
                return COMPARE[self.sign](got, float(self.wanted))
            except ValueError as error:
                told = f"--where {self.name}{self.sign}{self.wanted}"
                raise UserError(f"{told}: {self.name} is a number, {self.wanted!r} is none") from error
        return COMPARE[self.sign](as_text(got), self.wanted)


def condition(text: str) -> Condition:
    match = CONDITION.match(text)
    if not match:
        raise UserError(f"--where {text!r}: expected name=value, or one of != > < >= <= ~ (contains) between them")
    return Condition(*match.groups())


def as_text(got: Any) -> str:
    """Text as it is, everything else as JSON."""
    return got if isinstance(got, str) else json.dumps(got, ensure_ascii=False)


def value(run: Run, row: Any, name: str) -> Any:
    """What a row has under a name, or None.

    A name is a column (`capability`), a part of a nested one (`made_by.model`), what a scorer said of a response
    (`reward`), or what a response has from its prompt (`capability`). Raises UserError for any other.
    """
    known = columns(run, row)
    first, _, rest = name.partition(".")
    if first not in known:
        raise UserError(f"{name!r} is no column of this table{nearest(name, known)}")
    if rest:
        return _inner(getattr(row, first, None), rest)
    own = getattr(row, name, None)
    if own is not None:
        return own
    if name in run.scorers:
        return run.scores.get(getattr(row, "response_id", getattr(row, "id", "")), {}).get(name)
    return getattr(prompt_of(run, row), name, None) if name in ABOUT else None


def columns(run: Run, row: Any) -> list[str]:
    """Every name that `value` knows for rows like this one."""
    own = [item.name for item in fields(row)]
    if "prompt_id" in own or "response_id" in own:
        own += [name for name in ABOUT if name not in own]
    return [*own, *(scorer for scorer in run.scorers if scorer not in own)]


def prompt_of(run: Run, row: Any) -> Any:
    """The prompt of a response or of a score, or None."""
    if hasattr(row, "response_id"):
        found = run.index.get(row.response_id)
        row = found.row if found else row
    return run.prompts.get(getattr(row, "prompt_id", ""))


def _inner(outer: Any, path: str) -> Any:
    for part in path.split("."):
        if hasattr(outer, part):
            outer = getattr(outer, part)
        elif isinstance(outer, dict):
            outer = outer.get(part)
        else:
            return None
    return outer


def order(got: Any) -> tuple[int, float, str]:
    """A key for sorting values of any kind: numbers before texts before what is not there, when reversed."""
    if isinstance(got, (int, float)):
        return (2, float(got), "")
    return (0, 0.0, "") if got is None else (1, 0.0, as_text(got))


def rows_of(run: Run, stage: str | None, table: str) -> Iterator[tuple[str, Any]]:
    """Stage id and row, of a table; candidates of a stage that only scored them are those it scored."""
    if table == "responses" and stage is not None and "responses" not in run.stage(stage).tables:
        scored = {score.response_id for score in run.rows("scores", stage)}
        yield from ((hit.stage.id, hit.row) for id, hit in run.index.items() if id in scored)
        return
    for one in run.having(table, stage):
        yield from ((one.id, row) for row in run.rows(table, one.id))


def readable(run: Run, stage: str | None) -> str | None:
    """The table a person most likely wants of a stage, or of the run; None when there is none."""
    tables = {table for one in run.stages if stage in (None, one.id, one.name) for table in one.tables}
    if stage is not None and "scores" in tables:
        tables.add("responses")
    return next((table for table in (*FINDABLE, *sorted(tables)) if table in tables), None)
