"""Rows on disk: one Parquet file a table, nested values as JSON text so that mixed tool schemas survive Arrow."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.data.rows import Check, Pair, Prompt, Response, Row, Score
from posttrain.errors import UserError

T = TypeVar("T", Prompt, Response, Score, Row, Pair)

PLAIN: dict[str, pa.DataType] = {
    "id": pa.string(), "capability": pa.string(), "language": pa.string(), "source": pa.string(),
    "prompt_id": pa.string(), "response_id": pa.string(), "scorer": pa.string(), "text": pa.string(),
    "finish": pa.string(), "index": pa.int32(), "tokens": pa.int32(), "logprob": pa.float64(),
    "value": pa.float64(), "reward": pa.float64(), "margin": pa.float64(),
}  # fmt: skip
"""Columns with a type of their own; every other field is JSON text."""
TABLES: dict[str, type] = {
    "prompts": Prompt, "responses": Response, "scores": Score, "rows": Row, "pairs": Pair, "preferences": Pair,
}  # fmt: skip
GROUP_ROWS = 10_000
"""Rows a Parquet row group: what a reader holds in memory at once."""


def to_record(row: Any) -> dict[str, Any]:
    """A row as flat values: plain columns as they are, nested ones as JSON text."""
    record: dict[str, Any] = {}
    for item in fields(row):
        value = getattr(row, item.name)
        if item.name == "check" and value is not None:
            value = {"name": value.name, "args": value.args}
        record[item.name] = value if item.name in PLAIN else json.dumps(value, ensure_ascii=False)
    return record


def from_record(kind: type[T], record: dict[str, Any]) -> T:
    """The inverse of `to_record`."""
    values: dict[str, Any] = {}
    for item in fields(kind):
        value = record[item.name]
        if item.name not in PLAIN:
            value = json.loads(value)
            if item.name == "check":
                value = Check(**value) if value else None
            elif isinstance(value, list):
                value = tuple(value)
        values[item.name] = value
    return kind(**values)


def write_table(folder: Path, table: str, rows: Iterable[Any]) -> int:
    """Write `<folder>/<table>.parquet` as the rows come and return how many there were."""
    kind = TABLES[table]
    schema = pa.schema([(item.name, PLAIN.get(item.name, pa.string())) for item in fields(kind)])
    count, group = 0, []
    with pq.ParquetWriter(folder / f"{table}.parquet", schema) as writer:
        for row in rows:
            group.append(to_record(row))
            count += 1
            if len(group) == GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group or count == 0:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return count


def iter_table(folder: Path, table: str) -> Iterator[Any]:
    """Stream the rows of a table. Raises UserError when the artifact has none of that name."""
    path = folder / f"{table}.parquet"
    if not path.is_file():
        raise UserError(f"{folder} has no table {table!r}; it holds {sorted(p.stem for p in folder.glob('*.parquet'))}")
    for batch in pq.ParquetFile(path).iter_batches(GROUP_ROWS):
        for record in batch.to_pylist():
            yield from_record(TABLES[table], record)


def read_table(folder: Path, table: str) -> list[Any]:
    """All rows of a table in memory."""
    return list(iter_table(folder, table))
