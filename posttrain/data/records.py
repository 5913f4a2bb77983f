"""Records out of people's files, one by one: JSONL (also gzipped), JSON lists, Parquet, folders, and `datasets`.

What cannot be read is told with its place, and nothing a file holds can fill the memory.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain.data.rows import canonical_json
from posttrain.errors import UserError

MOST_LINE_BYTES = 32 << 20
"""A record of 128K tokens is about half a megabyte."""
MOST_LIST_BYTES = 512 << 20
"""Of a `.json` file that is one list: it is read whole."""
MOST_EXPANSION = 100
"""How many times its size a gzipped file may unpack to; text gains three to thirty times."""
FREE_EXPANSION = 16 << 20
"""Unpacked bytes that are always allowed."""
MOST_DEPTH = 100
"""Of nested lists and objects in a record."""
MOST_DIGITS = 300
"""Of a whole number: what a float still holds."""
SHOWN_CHARACTERS = 2_000
"""Of a record that was left out: what is kept to look at."""
BATCH_ROWS = 1_000
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

Record = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A record and where it stands (`file:line`, or `file:row`); `reason` says why there is none."""

    place: str
    record: Record = field(default_factory=dict)
    text: str = ""
    reason: str = ""


def records(
    source: str, subset: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[Found]:
    """Every record of a file, of the files of a folder, or of a data set saved in a folder or on the hub.

    Raises UserError for what cannot be opened or goes on too long.
    """
    path = Path(source)
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        return _saved_dataset(path, split)
    if path.is_dir():
        return _folder(path)
    if path.name.endswith(SUFFIXES) or path.exists():
        return _file(path)
    return _hub_dataset(source, subset, split, revision)


def parse_json(text: str) -> Any:
    """A JSON text as Python values. Raises ValueError, in words, also for numbers that are not finite, for half
    surrogate pairs, for a key that stands twice and for nesting beyond MOST_DEPTH."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    _check(value, text)
    return value


def _check(value: Any, text: str) -> None:
    if text.count("[") + text.count("{") > MOST_DEPTH and _depth(value) > MOST_DEPTH:
        raise ValueError(f"is nested too deeply: more than {MOST_DEPTH} levels")
    if "\\ud" in text or "\\uD" in text:
        try:
            canonical_json(value).encode()
        except UnicodeEncodeError as error:
            raise ValueError("holds half a surrogate pair, which is no text") from error


def _depth(value: Any) -> int:
    """Levels of lists and objects; walked without recursion."""
    deepest, level = 0, [value]
    while level:
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [below for item in inner for below in (item.values() if isinstance(item, dict) else item)]
        deepest += bool(inner)
    return deepest


def _no_number(name: str) -> Any:
    raise ValueError(f"holds {name}, which is not JSON; write null or a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"holds the number {digits[:20]}, which is too large")
    return number


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"holds the number {digits[:20]}…, which is too large")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a key that stands twice, Python would keep the last value and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return found


DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once)


def _file(path: Path) -> Iterator[Found]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json" and _is_list(path):
            yield from _list(path)
        else:
            yield from _jsonl(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({error}); gzip it again") from error
    except pa.ArrowException as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def _folder(path: Path) -> Iterator[Found]:
    files = [file for file in sorted(path.rglob("*")) if file.name.endswith(SUFFIXES) and not file.name.startswith(".")]
    if not files:
        raise UserError(f"{path} holds no data: no {', '.join(SUFFIXES)}, and no data set saved by `datasets`")
    for file in files:
        yield from _file(file)


def _jsonl(path: Path) -> Iterator[Found]:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
        for number, line in enumerate(_lines(cast(BinaryIO, handle), path), 1):
            if number == 1:
                line = _without_mark(line, path)
            if len(line) > MOST_LINE_BYTES:
                shown = line[:SHOWN_CHARACTERS].decode(errors="replace")
                yield Found(f"{path.name}:{number}", text=shown, reason=f"is longer than {MOST_LINE_BYTES >> 20} MiB")
            elif line.strip():
                yield _parsed(f"{path.name}:{number}", line)


def _parsed(place: str, line: bytes) -> Found:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        shown = line[:SHOWN_CHARACTERS].decode(errors="replace")
        return Found(place, text=shown, reason=f"is not UTF-8 ({error.reason} at byte {error.start + 1})")
    try:
        return _object(place, parse_json(text.strip()), text)
    except ValueError as error:
        return Found(place, text=text[:SHOWN_CHARACTERS], reason=str(error))


def _object(place: str, value: Any, text: str = "") -> Found:
    if isinstance(value, dict):
        return Found(place, value, text)
    return Found(place, text=text[:SHOWN_CHARACTERS], reason=f"is a {type(value).__name__}, not an object")


def _lines(handle: BinaryIO, path: Path) -> Iterator[bytes]:
    """Lines; one that is too long is given cut, one byte over the limit. Raises UserError for a gzip bomb."""
    packed, unpacked = path.stat().st_size, 0
    while line := handle.readline(MOST_LINE_BYTES + 1):
        part = line
        while part:
            unpacked += len(part)
            if path.suffix == ".gz" and unpacked > MOST_EXPANSION * packed + FREE_EXPANSION:
                raise UserError(
                    f"{path} unpacks to more than {MOST_EXPANSION} times its {packed:,} bytes, as no text does; "
                    "unpack it yourself if you trust it"
                )
            if part.endswith(b"\n") or len(part) <= MOST_LINE_BYTES:
                break
            part = handle.readline(MOST_LINE_BYTES + 1)
        yield line


def _without_mark(line: bytes, path: Path) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is UTF-16 text; save it as UTF-8")
    return line.removeprefix(b"\xef\xbb\xbf")


def _is_list(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _list(path: Path) -> Iterator[Found]:
    """The members of a file that is one JSON list, each with the line that it begins on."""
    if path.stat().st_size > MOST_LIST_BYTES:
        raise UserError(
            f"{path} is a JSON list of over {MOST_LIST_BYTES >> 20} MiB; write it as JSONL, a record a line"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start + 1}); save it as UTF-8"
        ) from error
    at, line, counted = _next(text, text.index("[") + 1), 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = DECODER.raw_decode(text, at)
            _check(value, text[at:end])
            after = _next(text, end)
            if text[after : after + 1] not in (",", "]"):
                raise ValueError("a comma or the list's end is missing")
        except (ValueError, RecursionError) as error:
            reason = "is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
            raise UserError(f"{path.name}:{line}: the list cannot be read on from here ({reason})") from error
        yield _object(f"{path.name}:{line}", value, text[at : min(end, at + SHOWN_CHARACTERS)])
        at = _next(text, after + 1) if text[after] == "," else after


def _next(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _parquet(path: Path) -> Iterator[Found]:
    number = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group).to_batches(max_chunksize=BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield _from_arrow(f"{path.name}:{number}", record)


def _saved_dataset(path: Path, split: str) -> Iterator[Found]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as a saved data set ({error})") from error
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise UserError(f"{path} has no split {split!r}; it has {', '.join(loaded)}")
        loaded = loaded[split]
    for number, record in enumerate(loaded, 1):
        yield _from_arrow(f"{path.name}:{number}", record)


def _hub_dataset(name: str, subset: str | None, split: str, revision: str | None) -> Iterator[Found]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # whatever network, hub and builders raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"data set {name}, split {split}: cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    for number, record in enumerate(loaded, 1):
        yield _from_arrow(f"{name}:{number}", record)


def _from_arrow(place: str, record: Record) -> Found:
    """Arrow gives every struct of a column the keys of all others, as nulls: those are not the record's."""
    return Found(place, {name: _without_nulls(value) for name, value in record.items() if value is not None})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
