"""Streaming a table through a decision: what is kept, and `rejects` with every reason."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posttrain.data.rows import Reject, Row
from posttrain.data.tables import TableWriter, iter_table, to_record
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.curate.texts import text_of
from synth.curate.wiring import Over

PROGRESS_EVERY = 1_000
SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Drop:
    """Why a row is left out; `text` is what that rests on (empty: the row's beginning), `instead` its changed copy."""

    reason: str
    text: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    instead: Any = None


def items(job: Job, over: Over = "rows") -> Iterator[Any]:
    """Stream the table of all the job's `rows` inputs, each id once; what it keeps in memory is the ids."""
    seen: set[str] = set()
    for folder in job.inputs["rows"]:
        for item in iter_table(Path(folder), over):
            if item.id not in seen:
                seen.add(item.id)
                yield item


def sift(job: Job, decide: Callable[[Any], Any], over: Over = "rows") -> None:
    """Write the table and `rejects` as `decide(item)` says: a Drop, or the item to keep (as it is, or labelled).

    Counts by reason and capability go to the summary. Raises UserError when nothing is kept.
    """
    drops: dict[str, Counter[str]] = {}
    read = 0
    with TableWriter(job.folder, over) as kept, TableWriter(job.folder, "rejects") as rejected:
        for read, item in enumerate(items(job, over), 1):
            verdict = decide(item)
            if isinstance(verdict, Drop):
                rejected.add(_reject(item, verdict, over))
                drops.setdefault(verdict.reason, Counter())[item.capability] += 1
                verdict = verdict.instead
            if verdict is not None:
                kept.add(verdict)
            if read % PROGRESS_EVERY == 0:
                job.progress(read, read, over)
    job.rows.update({over: kept.count, "rejects": rejected.count})
    job.summary["read"] = read
    job.summary["drops"] = {reason: count.total() for reason, count in sorted(drops.items())}
    job.summary["drops_by_capability"] = {
        reason: dict(sorted(count.items())) for reason, count in sorted(drops.items())
    }
    if not kept.count:
        told = ", ".join(f"{reason} {count:,}" for reason, count in job.summary["drops"].items())
        raise UserError(f"{job.name} kept none of {read:,} {over} ({told or 'none came in'}); loosen its rules")


def _reject(item: Any, drop: Drop, over: Over) -> Reject:
    text = drop.text or text_of(item, "both")[:SHOWN_CHARACTERS]
    return Reject(item.id, drop.reason, text, drop.detail, over, to_record(item))


def labelled(row: Row, **labels: Any) -> Row:
    """The row with more labels; its id stays."""
    return replace(row, labels={**row.labels, **labels})
