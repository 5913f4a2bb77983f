"""Writing rows of several tables in a given order, in bounded memory: dealt into buckets on disk, each then sorted.

Rows move as Arrow columns and are never parsed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.data.catalogue import Source
from posttrain.data.tables import GROUP_BYTES, GROUP_ROWS, completed, iter_groups, open_table, schema_of

BUCKET_BYTES = 32 << 20
"""About what is sorted in memory at once."""
MOST_BUCKETS = 256
"""Files open at once; beyond 16 GiB the buckets grow instead."""
SPILL = "spill"
RANK = "rank"


def write_in_order(
    folder: Path, table: str, sources: Sequence[Source], source_index: np.ndarray, row_index: np.ndarray,
    progress: Callable[[int, int], None],
) -> int:  # fmt: skip
    """Write `<folder>/<table>.parquet`: its row i is row `row_index[i]` of `sources[source_index[i]]`; rows may repeat.

    Returns how many there are.
    """
    spill, schema, count = folder / SPILL, schema_of(table), len(row_index)
    shutil.rmtree(spill, ignore_errors=True)  # of a run that was killed
    spill.mkdir()
    paths = [spill / str(number) for number in range(_buckets(sources, count))]
    _deal(paths, schema, sources, source_index, row_index, progress)
    with pq.ParquetWriter(folder / f"{table}.parquet", schema) as writer:
        for path in paths:
            rows = _sorted(path)
            most = max(1, min(GROUP_ROWS, GROUP_BYTES * len(rows) // max(1, rows.nbytes)))
            writer.write_table(rows, row_group_size=most)
            path.unlink()
    spill.rmdir()
    return count


def _buckets(sources: Sequence[Source], count: int) -> int:
    """How many, from the bytes of the tables and the share of their rows that is taken."""
    tables = [open_table(*source).metadata for source in sources]
    size = sum(table.row_group(group).total_byte_size for table in tables for group in range(table.num_row_groups))
    taken = size * count // max(1, sum(table.num_rows for table in tables))
    return min(MOST_BUCKETS, 1 + taken // BUCKET_BYTES)


def _deal(
    paths: Sequence[Path], schema: pa.Schema, sources: Sequence[Source], source_index: np.ndarray,
    row_index: np.ndarray, progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Put every row with its rank into the bucket that its rank falls into; buckets hold the ranks in turn."""
    ranked, done, count = schema.append(pa.field(RANK, pa.int64())), 0, len(row_index)
    with ExitStack() as stack:
        files = [stack.enter_context(pa.ipc.new_stream(str(path), ranked)) for path in paths]
        for number, source in enumerate(sources):
            ranks = np.flatnonzero(source_index == number)
            for rows, at in _taken(source, ranks, row_index[ranks]):
                rows = rows.append_column(RANK, pa.array(at))
                ends = _places(at * len(paths) // count, range(len(paths) + 1))
                for file, low, high in zip(files, ends[:-1], ends[1:], strict=True):
                    if low < high:
                        file.write_table(rows.slice(low, high - low))
                done += len(at)
                progress(done, count)


def _taken(source: Source, ranks: np.ndarray, row_index: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """The wanted rows of a table, in pieces no larger than its row groups, and their ranks in rising order."""
    by_row = np.argsort(row_index, kind="stable")
    ranks, row_index, start = ranks[by_row], row_index[by_row], 0
    for group in iter_groups(*source):
        low, high = _places(row_index, (start, start + len(group)))
        by_rank = low + np.argsort(ranks[low:high])
        # A row that is wanted many times would make one piece too large.
        for piece in np.array_split(by_rank, -(-(high - low) // max(1, len(group)))) if high > low else []:
            rows = completed(group.take(pa.array(row_index[piece] - start)), source[1])
            yield rows, ranks[piece]
        start += len(group)


def _places(rising: np.ndarray, values: Sequence[int]) -> list[int]:
    """Where each value would stand first among the rising ones."""
    return [int(np.searchsorted(rising, value)) for value in values]


def _sorted(path: Path) -> pa.Table:
    with pa.ipc.open_stream(str(path)) as reader:
        rows = reader.read_all().combine_chunks()
    order = np.argsort(rows[RANK].to_numpy())
    return rows.drop_columns([RANK]).take(pa.array(order))
