"""Reading what people have: files, folders and data sets become rows, prompts or pairs; every bad record is named."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from posttrain.data.formats import build
from posttrain.data.read_spec import Format, ReadConfig
from posttrain.data.records import SHOWN_CHARACTERS, Found, records
from posttrain.data.rows import Reject, canonical_json
from posttrain.data.tables import TableWriter
from posttrain.errors import UserError
from posttrain.stages import Job

MOST_FAULTS_SHOWN = 10
TABLE_OF = {"preferences": "preferences", "prompts": "prompts", "heldout": "prompts"}
"""Where not `rows`."""
PROGRESS_ROWS = 1_000

Read = tuple[Found, list[Any], str]
"""A record, what it became, and why it became nothing."""


def run(job: Job) -> None:
    config: ReadConfig = job.config
    source = str(job.inputs["file"])
    made_by = {"stage": job.name, "round": job.round}
    about = {"capability": config.capability, "language": config.language, "source": _name(source)}
    found = _read(records(source, config.subset, config.split, config.revision), config.format, about, made_by)
    table = TABLE_OF.get(config.format, "rows")
    with ExitStack() as stack:
        writer = stack.enter_context(TableWriter(job.folder, table))
        keep = stack.enter_context(TableWriter(job.folder, "rejects")) if config.on_error == "skip" else None
        faults = Faults(source, config.format, keep)
        duplicates = _write(job, writer, found, faults)
    if config.on_error == "fail":
        faults.refuse("mend them, or leave such records out with on_error: skip")
    if not writer.count:
        raise UserError(f"{source} holds nothing that format {config.format} reads{faults.told()}")
    job.rows.update({table: writer.count} | ({"rejects": faults.count} if keep else {}))
    job.summary["drops"] = {"duplicate": duplicates, "unreadable": faults.count}


def read_rows(source: Path, form: Format, capability: str, language: str = "en") -> list[Any]:
    """All rows of a file in its order; `capability` and `language` hold where a record names none.

    Raises UserError for a file that cannot be read or holds no row, and one naming the first faulty records.
    """
    about = {"capability": capability, "language": language, "source": _name(str(source))}
    rows, faults = [], Faults(str(source), form)
    for record, made, reason in _read(records(str(source)), form, about, {}):
        rows += made
        if reason:
            faults.add(record, reason)
    faults.refuse("mend them")
    if not rows:
        raise UserError(f"{source} holds nothing that format {form} reads")
    return rows


class Faults:
    """The records that could not be read: counted, the first remembered, all written where there is a writer."""

    def __init__(self, source: str, form: str, writer: TableWriter | None = None):
        self.source, self.form, self.writer = source, form, writer
        self.first: list[str] = []
        self.count = 0

    def add(self, found: Found, reason: str) -> None:
        self.count += 1
        if self.count <= MOST_FAULTS_SHOWN:
            self.first.append(f"\n  {found.place}: {reason}")
        if self.writer:
            text = found.text or canonical_json(_plain(found.record))
            self.writer.add(Reject(found.place, reason, text[:SHOWN_CHARACTERS]))

    def told(self) -> str:
        """The first of them, each on a line of its own, and how many more there are."""
        more = self.count - len(self.first)
        return "".join(self.first) + (f"\n  and {more:,} more" if more else "")

    def refuse(self, advice: str) -> None:
        """Raise UserError if there are any."""
        if self.count:
            records = "1 record is" if self.count == 1 else f"{self.count:,} records are"
            raise UserError(f"{self.source}: {records} not as format {self.form} needs; {advice}{self.told()}")


def _read(found: Iterator[Found], form: str, about: dict[str, Any], made_by: dict[str, Any]) -> Iterator[Read]:
    for record in found:
        made, reason = list[Any](), record.reason
        if not reason:
            try:
                made = build(record.record, form, {**about, "made_by": {**made_by, "place": record.place}})
            except ValueError as error:
                reason = str(error)
            except TypeError as error:  # a date or bytes of Parquet, where JSON is kept
                reason = f"cannot be kept: {error}"
        yield record, made, reason


def _write(job: Job, writer: TableWriter, found: Iterator[Read], faults: Faults) -> int:
    """Write each different row as it comes, up to the wanted number, and return how many were there before."""
    most, duplicates, seen = job.config.rows, 0, set[int]()
    for record, made, reason in found:
        if reason:
            faults.add(record, reason)
        for row in made:
            key = int(row.id, 16)
            if key in seen:
                duplicates += 1
            else:
                seen.add(key)
                writer.add(row)
                if writer.count == most:
                    return duplicates
                if writer.count % PROGRESS_ROWS == 0:
                    job.progress(writer.count, max(most, writer.count), "rows")
    return duplicates


def _name(source: str) -> str:
    """A file's name, or a data set's."""
    path = Path(source)
    return path.name if path.exists() or path.is_absolute() else source


def _plain(record: Any) -> Any:
    """A record of Parquet may hold dates and bytes."""
    if isinstance(record, dict):
        return {str(name): _plain(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_plain(value) for value in record]
    return record if isinstance(record, str | int | float | bool | None) else repr(record)
