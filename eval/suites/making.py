"""From items to a suite's artifact: the table `prompts` and `suite.json`, after the gold answers have scored 1.0."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from eval.scorers import SCORERS
from posttrain.artifacts import write_durably
from posttrain.checks.verifiers import arguments, grade
from posttrain.data.records import Record, records
from posttrain.data.rows import Check, Message, Prompt
from posttrain.data.tables import write_table
from posttrain.errors import UserError
from posttrain.stages import Job

SUITE = "suite.json"
ELSEWHERE = ("judge", "harness")
"""Names of checks that are no scorers: a judge reads the answer, or lm-eval grades it."""
By = Literal["answer", "likelihood", "dialog", "judge", "harness"]


@dataclass(frozen=True)
class Item:
    """A prompt, where it has one its gold answer, and where it stands in a user's file."""

    messages: tuple[Message, ...]
    check: Check
    gold: Message | None = None
    tools: tuple[dict[str, Any], ...] = ()
    language: str = "en"
    place: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """`category`, `cluster` (prompts that share a source), `length` and `depth`: what tables are split by."""


@dataclass(frozen=True)
class Answering:
    """How a suite's prompts are answered."""

    kind: str = "heldout"
    """Which suite it is, and so which further numbers are summed up."""
    by: By = "answer"
    """`answer`: one text or several; `likelihood`: the likeliest of given texts; `dialog`: turns with tools that are
    run; `judge`: a text that a judge compares with the reference; `harness`: as lm-eval's tasks ask."""
    n: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 0
    """0 takes that of the stage that evaluates."""
    passes: tuple[int, ...] = ()
    """The k of pass@k."""


def says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def asks(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def called(*calls: tuple[str, dict[str, Any]]) -> Message:
    made = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return {"role": "assistant", "content": "", "tool_calls": made}


def write_suite(job: Job, items: Iterable[Item], answering: Answering) -> None:
    """Raises UserError for no prompts, two of one id, a check that cannot be used, and a gold answer below 1.0."""
    prompts: dict[str, Prompt] = {}
    places: dict[str, str] = {}
    for item in items:
        prompt = _prompt(job, item, answering)
        if prompt.id in prompts:
            raise UserError(f"{item.place} asks the same as {places[prompt.id]} (id {prompt.id}); leave one out")
        _prove(job, item)
        prompts[prompt.id], places[prompt.id] = prompt, item.place or job.name
    write_prompts(job, prompts.values(), answering)


def write_prompts(job: Job, prompts: Iterable[Prompt], answering: Answering) -> None:
    """The suite's artifact. Raises UserError for no prompts."""
    rows = sorted(prompts, key=lambda prompt: prompt.id)
    if not rows:
        raise UserError(f"the suite {job.name} has no prompts; fill its file, or name another one")
    job.rows["prompts"] = write_table(job.folder, "prompts", rows)
    write_durably(job.folder / SUITE, json.dumps(asdict(answering), indent=1))
    job.summary["prompts"] = len(rows)


def _prompt(job: Job, item: Item, answering: Answering) -> Prompt:
    made_by = {"stage": job.name, "suite": answering.kind, **item.about}
    return Prompt(item.messages, job.name, item.language, "suite", item.tools, item.check, made_by=made_by)


def _prove(job: Job, item: Item) -> None:
    """The gold answer must score 1.0: else the reference or the scorer is wrong, and no number would mean anything."""
    where = item.place or f"a prompt that {job.name} made"
    try:
        arguments(item.check, SCORERS) if item.check.name not in ELSEWHERE else None
        verdict = grade(item.check, item.gold, SCORERS) if item.gold else None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its check cannot be used ({error!r}); mend the record") from None
    if verdict is not None and verdict.value != 1.0:
        raise UserError(
            f"{where}: its own reference answer scores {verdict.value} by {item.check.name} ({verdict.reason}); "
            "mend the reference, or name another scorer"
        )


def file_items(job: Job, build: Callable[[Record], Item]) -> Iterator[Item]:
    """The items of the job's file, the first `n`. `build` raises ValueError in words, or KeyError for a missing key."""
    for found in islice(records(str(job.inputs["file"])), job.config.n):
        if found.reason:
            raise UserError(f"{found.place} {found.reason}; mend the record or leave it out")
        try:
            item = build(found.record)
        except KeyError as error:
            raise UserError(f"{found.place} has no {error.args[0]}; add it or leave the record out") from None
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{found.place} {error}; mend the record or leave it out") from None
        yield replace(item, place=found.place)


def read_answering(folder: Path) -> Answering:
    """How a folder of evaluation prompts is answered; one that is no suite is the plain case."""
    try:
        raw = json.loads((folder / SUITE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Answering()
    return Answering(**{**raw, "passes": tuple(raw["passes"])})


def reference(record: Record, *names: str) -> Any:
    """The first of the keys that the record has. Raises ValueError where it has none of them, or an empty one."""
    for name in names:
        if record.get(name) not in (None, "", []):
            return record[name]
    raise ValueError(f"has no {' or '.join(names)}")


def about(record: Record, *names: str) -> dict[str, Any]:
    """The record's own labels for tables."""
    return {name: record[name] for name in ("category", "cluster", *names) if record.get(name) is not None}
