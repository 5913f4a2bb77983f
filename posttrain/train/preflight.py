"""The preflight: before a step is trained, the actual rows are fitted to the limit and proven to be what is served.

A training stage's module has `load(job, renderer)`, which reads its rows and returns what `preflight` makes of them;
the stage trains on that. `posttrain preflight` calls the same `load`, and trains nothing. The report, ledger included,
is a file of the stage's artifact.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from posttrain.chat import CONTEXT, FORMAT, TRAINED, Renderer
from posttrain.data.rows import Pair
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train import proof
from posttrain.train.context import context, same_rotary
from posttrain.train.overlength import Entry, Example, Fitted, Render, fit, parts
from posttrain.train.proof import CHECKS, Faults, Served

REPORT = "preflight.json"
"""File of the artifact."""
SHOWN = 3
"""Rows that are shown in colour."""
NAMED = 3
"""Rows an error names before it says how many more there are."""
MODELS = ("init", "reference")
"""Inputs whose context every row has to fit."""

Segment = tuple[int, str, int]
"""Mask value, text with control tokens, tokens."""


@dataclass(frozen=True)
class Check:
    """`failed` has row ids (empty where it is no row's fault) and reasons; it is empty when the check passed."""

    name: str
    says: str
    failed: dict[str, str]

    def __str__(self) -> str:
        """What does not hold, and for which rows."""
        where = [f"{row_id[:16]} ({why})" if row_id else why for row_id, why in list(self.failed.items())[:NAMED]]
        more = f" and {len(self.failed) - NAMED:,} more" if len(self.failed) > NAMED else ""
        return f"it does not hold that {self.says}: {', '.join(where)}{more}"


@dataclass(frozen=True)
class Sample:
    """A row as it is trained; a pair is two conversations, chosen first."""

    id: str
    source: str
    capability: str
    conversations: tuple[tuple[Segment, ...], ...]


@dataclass(frozen=True)
class Report:
    """What the preflight of one stage found."""

    stage: str
    limit: int
    """Tokens the longest row may have."""
    rows: int
    """As they came; pairs where pairs are trained."""
    rendered_twice: int
    """Rows that transformers rendered too."""
    checks: tuple[Check, ...]
    ledger: tuple[Entry, ...]
    dropped: tuple[str, ...]
    """Ids of rows left out as too long."""
    truncated: tuple[str, ...]
    """Ids of rows that lost their oldest turns."""
    samples: tuple[Sample, ...]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.failed]

    def total(self, count: str) -> int:
        """A count of the ledger, over all sources."""
        return sum(getattr(entry, count) for entry in self.ledger)


def preflight(job: Job, renderer: Renderer, rows: Sequence[Any], render: Render) -> list[tuple[Any, Example]]:
    """The rows (or pairs) to train on with their examples, made by `render`, fitted to the limit and proven, in order.

    Reads `init` (and `reference`) of the job's inputs, and writes the report into its folder and summary. Raises
    UserError naming the rows where a check fails; the report is written before.
    """
    limit = row_limit(job)
    fitted = fit(rows, render, limit, job.config.over_length)
    judge, faults = proof.served(renderer), Faults()
    bos = judge.tokenizer.bos_token_id if judge.begins_with_bos else None
    proof.check_model(judge, renderer, faults)
    faults.found |= {check: found for check, found in (("said", fitted.unsaid), ("length", fitted.refused)) if found}
    for row, example in zip(fitted.rows, fitted.examples, strict=True):
        proof.check_row(row, example, renderer, bos, faults)
    twice = _to_render_twice(job, fitted, judge)
    proof.check_template(job.inputs["init"], judge, [fitted.rows[number] for number in twice], faults)
    for number in twice:
        proof.check_rendering(fitted.rows[number], fitted.examples[number], judge, faults)
    report = _report(job, renderer, fitted, faults, limit, len(rows), len(twice))
    (job.folder / REPORT).write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False), encoding="utf-8")
    job.summary["preflight"] = _totals(report)
    if report.failed:
        raise UserError(_sentence(report))
    if rows and not fitted.rows:
        raise UserError(f"all {len(rows):,} rows are longer than {limit:,} tokens and were dropped")
    return list(zip(fitted.rows, fitted.examples, strict=True))


def row_limit(job: Job) -> int:
    """Tokens a row may have: `max_length`, else the shortest context of the models that will read it.

    Raises UserError for a `max_length` beyond that, and for rotary settings that were lost.
    """
    paths = [job.inputs[name] for name in MODELS if name in job.inputs]
    for path in paths[1:]:
        same_rotary(paths[0], path)
    shortest = min(context(path) for path in paths)
    if job.config.max_length > shortest:
        raise UserError(
            f"{job.name}: max_length {job.config.max_length:,} is more than the {shortest:,} positions that "
            f"{' and '.join(map(str, paths))} can read; lower it, or begin from a model of a longer context"
        )
    return int(job.config.max_length or shortest)


def _to_render_twice(job: Job, fitted: Fitted, judge: Served) -> list[int]:
    """Numbers of the rows to render a second time: a sample, and those that were truncated or name control tokens."""
    every = range(len(fitted.rows))
    sample = job.rng("preflight").sample(every, min(job.config.preflight_rows, len(every)))
    risky = [number for number in every if _is_risky(fitted.rows[number], fitted, judge)]
    return sorted({*sample, *risky})


def _is_risky(row: Any, fitted: Fitted, judge: Served) -> bool:
    told = [*row.prompt, *row.sides[0], *row.sides[1]] if isinstance(row, Pair) else list(row.messages)
    return row.id in fitted.truncated or judge.holds_control_text([*told, *row.tools])


def _report(
    job: Job, renderer: Renderer, fitted: Fitted, faults: Faults, limit: int, rows: int, twice: int
) -> Report:  # fmt: skip
    return Report(
        stage=job.name,
        limit=limit,
        rows=rows,
        rendered_twice=twice,
        checks=tuple(Check(name, says, faults.found.get(name, {})) for name, says in CHECKS.items()),
        ledger=tuple(fitted.ledger[source] for source in sorted(fitted.ledger)),
        dropped=tuple(sorted(fitted.dropped)),
        truncated=tuple(sorted(fitted.truncated)),
        samples=tuple(_samples(job, renderer, fitted, faults)),
    )


def _samples(job: Job, renderer: Renderer, fitted: Fitted, faults: Faults) -> list[Sample]:
    """Rows to look at: those that failed first, then of each capability and source one, in an order the seed gives."""
    failed = {row_id for found in faults.found.values() for row_id in found}
    order = list(range(len(fitted.rows)))
    job.rng("samples").shuffle(order)
    seen: set[tuple[str, str]] = set()

    def rank(number: int) -> int:
        row = fitted.rows[number]
        kind = (row.capability, row.source)
        new = kind not in seen
        seen.add(kind)
        return 0 if row.id in failed else 1 if new else 2

    order.sort(key=rank)  # stable, and asks for each rank once and in order
    return [_sample(renderer, fitted.rows[number], fitted.examples[number]) for number in order[:SHOWN]]


def _sample(renderer: Renderer, row: Any, example: Example) -> Sample:
    told = tuple(tuple(segments(renderer, ids, trained)) for ids, trained in parts(example))
    return Sample(row.id, row.source, row.capability, told)


def segments(renderer: Renderer, ids: Sequence[int], trained: Sequence[bool]) -> list[Segment]:
    """The tokens cut where context, trained and trained format tokens meet."""
    mask = [
        (FORMAT if token in renderer.stop_ids else TRAINED) if on else CONTEXT
        for token, on in zip(ids, trained, strict=True)
    ]
    cuts = [0, *(i for i in range(1, len(mask)) if mask[i] != mask[i - 1]), len(mask)]
    return [(mask[a], renderer.tokenizer.decode(ids[a:b]), b - a) for a, b in pairwise(cuts) if b > a]


def _totals(report: Report) -> dict[str, int]:
    names = [item.name for item in fields(Entry) if item.name not in ("source", "policy", "longest")]
    longest = max((entry.longest for entry in report.ledger), default=0)
    return {name: report.total(name) for name in names} | {"longest": longest}


def _sentence(report: Report) -> str:
    """Every check that failed, with the first rows it failed for."""
    lines = ["the preflight failed and nothing was trained"]
    for check in report.failed:
        lines.append(f"{check}{_advice(report) if check.name == 'length' else ''}")
    return "\n  ".join(lines)


def _advice(report: Report) -> str:
    sources = ", ".join(entry.source or "(no source)" for entry in report.ledger if entry.over_length)
    return (
        f"; the limit is {report.limit:,} tokens: raise max_length (at most the model's context), or say in "
        f"over_length what is to be done with long rows of {sources}"
    )


def read_report(folder: Path) -> Report | None:
    """The report in an artifact, or None where it has none. Raises UserError when it cannot be read."""
    path = folder / REPORT
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        checks = tuple(Check(**check) for check in raw.pop("checks"))
        ledger = tuple(Entry(**entry) for entry in raw.pop("ledger"))
        samples = tuple(
            Sample(
                sample["id"],
                sample["source"],
                sample["capability"],
                tuple(tuple((m, text, n) for m, text, n in told) for told in sample["conversations"]),
            )
            for sample in raw.pop("samples")
        )
        dropped, truncated = tuple(raw.pop("dropped")), tuple(raw.pop("truncated"))
        return Report(
            checks=checks, ledger=ledger, dropped=dropped, truncated=truncated, samples=samples, **raw
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the stage again to write it anew") from error
