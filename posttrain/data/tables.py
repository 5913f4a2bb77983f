"""Rows on disk: one Parquet file a table, nested values as JSON text so that mixed tool schemas survive Arrow."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.data.rows import Check, Document, Pair, Prompt, Reject, Response, Row, Sample, Score
from posttrain.errors import UserError

T = TypeVar("T", Document, Prompt, Response, Score, Sample, Row, Pair, Reject)

PLAIN: dict[str, pa.DataType] = {
    "id": pa.string(), "capability": pa.string(), "language": pa.string(), "source": pa.string(),
    "prompt_id": pa.string(), "response_id": pa.string(), "scorer": pa.string(), "text": pa.string(),
    "title": pa.string(),
    "finish": pa.string(), "index": pa.int32(), "tokens": pa.int32(), "count": pa.int32(), "logprob": pa.float64(),
    "value": pa.float64(), "reward": pa.float64(), "margin": pa.float64(), "rating": pa.string(),
    "place": pa.string(), "reason": pa.string(), "table": pa.string(),
}  # fmt: skip
"""Columns with a type of their own; every other field is JSON text."""
TABLES: dict[str, type] = {
    "prompts": Prompt, "responses": Response, "scores": Score, "rows": Row, "pairs": Pair, "preferences": Pair,
    "rejects": Reject, "samples": Sample, "documents": Document,
}  # fmt: skip
GROUP_ROWS = 10_000
"""Rows of a Parquet row group at most: what a reader holds in memory at once."""
GROUP_BYTES = 16 << 20
"""Its text at most, where one row alone is not more: a row of 128K tokens is half a megabyte."""
BATCH_ROWS = 1_000
"""Rows that are Python objects at once while a table is read."""


to_json = json.JSONEncoder(ensure_ascii=False).encode


def to_record(row: Any) -> dict[str, Any]:
    """A row as flat values: plain columns as they are, nested ones as JSON text."""
    record: dict[str, Any] = {}
    for item in fields(row):
        value = getattr(row, item.name)
        if item.name == "check" and value is not None:
            value = {"name": value.name, "args": value.args}
        record[item.name] = value if item.name in PLAIN else to_json(value)
    return record


def from_record(kind: type[T], record: dict[str, Any]) -> T:
    """The inverse of `to_record`. A field that was added after the table was written has its default."""
    values: dict[str, Any] = {}
    for item in fields(kind):
        if item.name not in record and (item.default, item.default_factory) != (MISSING, MISSING):
            continue
        value = record[item.name]
        if item.name not in PLAIN:
            value = json.loads(value)
            if item.name == "check":
                value = Check(**value) if value else None
            elif isinstance(value, list):
                value = tuple(value)
        values[item.name] = value
    return kind(**values)


def schema_of(table: str) -> pa.Schema:
    """The Arrow schema of a table."""
    return pa.schema([(item.name, PLAIN.get(item.name, pa.string())) for item in fields(TABLES[table])])


class TableWriter:
    """Writes `<folder>/<table>.parquet` a row at a time, holding one group in memory; use it in a `with`."""

    def __init__(self, folder: Path, table: str):
        self.schema = schema_of(table)
        self.file = pq.ParquetWriter(folder / f"{table}.parquet", self.schema)
        self.group: list[dict[str, Any]] = []
        self.group_bytes = 0
        self.count = 0

    def add(self, row: Any) -> None:
        record = to_record(row)
        self.group.append(record)
        self.group_bytes += sum(len(value) for value in record.values() if isinstance(value, str))
        self.count += 1
        if len(self.group) == GROUP_ROWS or self.group_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(pa.Table.from_pylist(self.group, self.schema))
        self.group, self.group_bytes = [], 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self.group or self.count == 0:
            self._flush()
        self.file.close()


def write_table(folder: Path, table: str, rows: Iterable[Any]) -> int:
    """Write `<folder>/<table>.parquet` as the rows come and return how many there were."""
    with TableWriter(folder, table) as writer:
        for row in rows:
            writer.add(row)
    return writer.count


def open_table(folder: Path, table: str) -> pq.ParquetFile:
    """The Parquet file of a table. Raises UserError when the artifact has none of that name."""
    path = folder / f"{table}.parquet"
    if not path.is_file():
        raise UserError(f"{folder} has no table {table!r}; it holds {sorted(p.stem for p in folder.glob('*.parquet'))}")
    return pq.ParquetFile(path)


def iter_groups(folder: Path, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Stream a table, of some columns or all, a row group at a time. Raises UserError when there is no such table."""
    with open_table(folder, table) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns) if columns else None)


def iter_batches(folder: Path, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The same in batches of BATCH_ROWS at most."""
    for group in iter_groups(folder, table, columns):
        yield from group.to_batches(max_chunksize=BATCH_ROWS)


def iter_table(folder: Path, table: str) -> Iterator[Any]:
    """Stream the rows of a table. Raises UserError when the artifact has none of that name."""
    for batch in iter_batches(folder, table):
        for record in batch.to_pylist():
            yield from_record(TABLES[table], record)


def read_table(folder: Path, table: str) -> list[Any]:
    """All rows of a table in memory."""
    return list(iter_table(folder, table))


def completed(rows: pa.Table, table: str) -> pa.Table:
    """Rows as they came from disk, with the columns that were added after they were written, at their defaults."""
    columns = {name: rows[name] for name in rows.column_names}
    for item in fields(TABLES[table]):
        if item.name not in columns:
            value = item.default_factory() if item.default_factory is not MISSING else item.default
            stored = value if item.name in PLAIN else json.dumps(value)
            columns[item.name] = pa.repeat(pa.scalar(stored, PLAIN.get(item.name, pa.string())), len(rows))
    schema = schema_of(table)
    return pa.table([columns[name] for name in schema.names], schema)


def pair_table(folder: Path) -> str:
    """The name of an artifact's table of pairs: `preferences` where people or checks made them, else `pairs`."""
    return "preferences" if (folder / "preferences.parquet").is_file() else "pairs"
