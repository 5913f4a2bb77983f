"""Comparisons for a person to fill in, as JSONL and CSV, and what comes back.

A line has an id, the prompt, two answers in random order, and three fields to fill in: `choice` (a, b, tie or skip),
`rating` (one of four levels, when there is a choice) and, if the person wrote a better answer than either, `edited`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from posttrain.checks.judge import Comparison, text_of
from posttrain.data.rows import RATINGS
from posttrain.errors import UserError

JSONL, CSV = "to_fill_in.jsonl", "to_fill_in.csv"
CHOICES = ("a", "b", "tie", "skip")
COLUMNS = ("id", "prompt", "answer_a", "answer_b", "choice", "rating", "edited")
MOST_FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Filled:
    """What a person said of a comparison: a choice of CHOICES, a rating with `a` and `b`, and an edit or an empty
    text."""

    choice: str
    rating: str = ""
    edited: str = ""


def export(folder: Path, comparisons: list[Comparison]) -> None:
    """Write both files; the JSONL one also has the messages and tools as they are."""
    rows = [_empty(comparison) for comparison in comparisons]
    with open(folder / CSV, "w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with open(folder / JSONL, "w", encoding="utf-8") as handle:
        for row, comparison in zip(rows, comparisons, strict=True):
            whole = row | {"messages": comparison.prompt.messages, "tools": comparison.prompt.tools}
            handle.write(json.dumps(whole, ensure_ascii=False) + "\n")


def _empty(comparison: Comparison) -> dict[str, Any]:
    turns = [f"[{message['role']}]\n{text_of(message)}" for message in comparison.prompt.messages]
    shown = {"id": comparison.id, "prompt": "\n\n".join(turns)}
    return shown | {
        "answer_a": comparison.first, "answer_b": comparison.second, "choice": "", "rating": "", "edited": ""
    }  # fmt: skip


def read(path: Path, comparisons: list[Comparison]) -> dict[str, Filled]:
    """Comparison id → what the person said, for every comparison. Raises UserError naming the first faulty lines, and
    the comparisons that are missing."""
    known = {comparison.id for comparison in comparisons}
    filled: dict[str, Filled] = {}
    faults = []
    for number, record in _records(path):
        try:
            key = record.get("id")
            if key not in known:
                _refuse(f"the id {key!r} is none of this round's comparisons")
            if key in filled:
                _refuse(f"the comparison {key} stands twice")
            filled[str(key)] = _filled(record)
        except ValueError as error:
            faults.append(f"{path.name}:{number}: {error}")
    if faults:
        shown = "\n  ".join(faults[:MOST_FAULTS_SHOWN])
        raise UserError(f"{path}: {len(faults)} of its lines cannot be taken; mend them\n  {shown}")
    missing = sorted(known - filled.keys())
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {len(known)} comparisons, first {missing[0]}; keep every line, with "
            "choice: skip where nobody looked"
        )
    return filled


def _filled(record: dict[str, Any]) -> Filled:
    choice, rating, edited = (_text(record, name) for name in ("choice", "rating", "edited"))
    choice, rating = choice.strip().lower(), "_".join(rating.lower().split())
    if choice not in CHOICES:
        _refuse(
            f"choice is {choice!r}; write {', '.join(CHOICES)}" if choice else "has no choice; write a, b, tie or skip"
        )
    if choice in ("a", "b") and rating not in RATINGS:
        _refuse(f"rating is {rating!r}; write one of {', '.join(RATINGS)}")
    if choice not in ("a", "b") and rating:
        _refuse(f"choice is {choice} but there is a rating ({rating}); leave one of them out")
    if choice not in ("a", "b") and edited.strip():
        _refuse(f"choice is {choice} but there is an edited answer; choose the better of the two it stands above")
    return Filled(choice, rating, edited.strip())


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        _refuse(f"{name} is a {type(value).__name__}, not a text")
    return value or ""


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields of each record. Raises UserError for a file that is not what its ending says."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            yield from _csv(path, handle) if path.suffix == ".csv" else _jsonl(path, handle)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); save it again") from error


def _csv(path: Path, handle: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    head = handle.readline()
    handle.seek(0)
    reader = csv.DictReader(handle, delimiter=";" if head.count(";") > head.count(",") else ",")
    lacking = [name for name in ("id", "choice", "rating") if name not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"{path} has no column {' and no column '.join(lacking)}; keep the columns of {CSV}")
    for record in reader:
        yield reader.line_num, record


def _jsonl(path: Path, handle: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(handle, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number} is not JSON ({error}); keep one object a line") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number} is a {type(record).__name__}, not an object; keep one object a line")
        yield number, record
