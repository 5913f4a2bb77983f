"""What there is to mix, as columns of numbers: fifty bytes a row, so that a mix of millions fits in memory."""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from posttrain.data.lengths import TEXT_COLUMNS, Lengths
from posttrain.data.rows import content_id
from posttrain.data.tables import iter_groups, open_table

Source = tuple[Path, str]
"""An artifact's folder and the name of its table."""
NAMED = ("capability", "language", "source", "rating")
NO_ROUND = -1
SCORES = {"rows": "reward", "pairs": "margin", "preferences": "margin"}
"""The column by which the better of two equal rows is kept."""


@dataclass(frozen=True)
class Catalogue:
    """One entry a different row, sorted by key. Arrays of shape (N); `names[column][codes[column][i]]` is a text.

    `key` is the hash of the seed and the row's id: it orders the rows and tells them apart, wherever they stand.
    """

    sources: Sequence[Source]
    key: np.ndarray
    source_index: np.ndarray
    row_index: np.ndarray
    round: np.ndarray
    """NO_ROUND where the row does not say."""
    tokens: np.ndarray
    scores: dict[str, np.ndarray]
    """The wanted scores; NaN where a row has none."""
    codes: dict[str, np.ndarray]
    names: dict[str, list[str]]
    read: int
    """Rows before the same ones were put together."""

    def __len__(self) -> int:
        return len(self.key)

    def among(self, column: str, wanted: Sequence[str]) -> np.ndarray:
        """Which rows have one of the wanted texts in a column, as booleans."""
        found = [code for code, name in enumerate(self.names[column]) if name in wanted]
        return np.isin(self.codes[column], found)


def survey(
    sources: Sequence[Source], seed: int, lengths: Lengths, scores: Sequence[str], progress: Callable[[int, int], None]
) -> Catalogue:
    """Read all tables once. Of a row that stands in several, the newest round's is kept, then the best scored."""
    total = sum(open_table(*source).metadata.num_rows for source in sources)
    names: dict[str, dict[str, int]] = {name: {} for name in NAMED}
    pieces: list[dict[str, np.ndarray]] = []
    done = 0
    for number, (folder, table) in enumerate(sources):
        start = 0
        # A table of rows has no ratings, and Arrow leaves out columns that are not there.
        labels = ["labels"] if set(scores) - {SCORES[table]} else []
        columns = ["id", "made_by", *NAMED, SCORES[table], *labels, *TEXT_COLUMNS[table]]
        for group in iter_groups(folder, table, columns):
            piece = _piece(group, table, seed, names)
            piece |= {f"score {name}": _score(group, name) for name in scores}
            piece["tokens"] = lengths(group, TEXT_COLUMNS[table])
            piece["source_index"] = np.full(len(group), number, np.int32)
            piece["row_index"] = np.arange(start, start + len(group))
            pieces.append(piece)
            start += len(group)
            done += len(group)
            progress(done, total)
    pieces = pieces or [_nothing(scores)]
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    kept = _different(found)
    found = {name: values[kept] for name, values in found.items()}
    return Catalogue(
        sources, found["key"], found["source_index"], found["row_index"], found["round"], found["tokens"],
        {name: found[f"score {name}"] for name in scores},
        {name: found[name] for name in NAMED}, {name: list(of) for name, of in names.items()}, total,
    )  # fmt: skip


def _piece(group: pa.Table, table: str, seed: int, names: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    texts = {name: group[name].to_pylist() for name in NAMED if name in group.column_names}
    made_by = group["made_by"].to_pylist()
    piece = {name: _codes(texts.get(name, [None] * len(group)), names[name]) for name in NAMED}
    piece["key"] = np.array([int(content_id(seed, row_id), 16) for row_id in group["id"].to_pylist()], np.uint64)
    piece["round"] = np.array([_round(json.loads(text)) for text in made_by], np.int32)
    piece["best"] = _score(group, SCORES[table])
    about = zip(*texts.values(), made_by, strict=True)
    piece["tie"] = np.array([zlib.crc32(repr(item).encode()) for item in about], np.uint32)
    return piece


def _score(group: pa.Table, name: str) -> np.ndarray:
    """A column of its own, or a number among the labels; NaN where there is none."""
    if name in group.column_names:
        return group[name].to_numpy().astype(np.float64)
    if "labels" not in group.column_names:
        return np.full(len(group), np.nan)
    found = [json.loads(text).get(name) for text in group["labels"].to_pylist()]
    return np.array([value if isinstance(value, int | float) else np.nan for value in found], np.float64)


def _round(made_by: dict[str, Any]) -> int:
    number = made_by.get("round")
    return number if isinstance(number, int) else NO_ROUND


def _codes(texts: list[str | None], names: dict[str, int]) -> np.ndarray:
    return np.array([names.setdefault(text or "", len(names)) for text in texts], np.int32)


def _different(found: dict[str, np.ndarray]) -> np.ndarray:
    """Places of one entry for each key, in the order of the keys; which one does not depend on where rows stand."""
    order = np.lexsort((found["tie"], -found["best"], -found["round"], found["key"]))
    keys = found["key"][order]
    return order[np.r_[True, keys[1:] != keys[:-1]]] if len(order) else order


def _nothing(scores: Sequence[str]) -> dict[str, np.ndarray]:
    numbers = ("key", "round", "best", "tie", "tokens", "source_index", "row_index")
    columns = (*NAMED, *numbers, *(f"score {name}" for name in scores))
    return dict.fromkeys(columns, np.zeros(0, np.int64))
