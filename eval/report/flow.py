"""From prompts to trained rows, stage by stage: what was read and written, and everything that was left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eval.report.evaluations import EVALUATION, KEPT
from eval.report.page import short
from eval.run_spec import PART
from posttrain.inspect.run import Run, Stage

NO_DATA = (EVALUATION, PART, KEPT, "eval_prompts", "prepared_model")
"""Kinds whose stages stand beside the way of the data."""
Count = tuple[str, int]


@dataclass(frozen=True)
class Step:
    """One stage. `facts` are further counts it told, such as how many prompts were put aside for the reward model."""

    id: str
    name: str
    reads: tuple[str, ...]
    facts: tuple[Count, ...]
    wrote: tuple[Count, ...]
    left_out: tuple[Count, ...]


@dataclass(frozen=True)
class Round:
    """A round's steps, with its first and last number: prompts made, rows and pairs trained on."""

    number: int
    steps: tuple[Step, ...]
    prompts: int
    rows: int
    pairs: int


def flow(run: Run) -> list[Round]:
    """Every round that has a finished step."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    rounds = []
    for number in sorted({stage.round for stage in run.stages}):
        own = [stage for stage in run.stages if stage.round == number and _handles_data(entries[stage.id])]
        if steps := tuple(_step(stage, entries[stage.id]) for stage in own):
            rounds.append(Round(number, steps, _made(own, "prompts"), *_trained(own, entries)))
    return rounds


def _handles_data(entry: Mapping[str, Any]) -> bool:
    return not any(kind in entry["provides"] for kind in NO_DATA)


def _made(stages: list[Stage], table: str) -> int:
    return sum(stage.manifest.rows.get(table, 0) for stage in stages)


def _trained(stages: list[Stage], entries: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and pairs of the stages that made a checkpoint."""
    trained = [stage.manifest.summary for stage in stages if "checkpoint" in entries[stage.id]["provides"]]
    return sum(summary.get("rows", 0) for summary in trained), sum(summary.get("pairs", 0) for summary in trained)


def _step(stage: Stage, entry: Mapping[str, Any]) -> Step:
    place = f"{stage.id.partition('/')[0]}/"
    reads = [
        str(item).removeprefix(place) if isinstance(item, str) and "/" in item else str(item)
        for value in entry["inputs"].values()
        for item in (value if isinstance(value, list) else [value])
    ]
    known = dict.fromkeys(short(item) for item in reads)
    facts = _facts(stage.manifest.summary)
    return Step(stage.id, stage.name, tuple(known), facts, _wrote(stage), tuple(left_out(stage.manifest.summary)))


def _wrote(stage: Stage) -> tuple[Count, ...]:
    return tuple((table, number) for table, number in stage.manifest.rows.items() if table != "rejects")


def _facts(summary: Mapping[str, Any]) -> tuple[Count, ...]:
    """Plain counts under `prompts`, and what training read."""
    found = [(name.replace("_", " "), n) for name, n in _counts(summary.get("prompts"))]
    preflight = summary.get("preflight", {})
    names = ("rows", "pairs", "prompts", "steps")
    found += [(name, summary[name]) for name in names if preflight and isinstance(summary.get(name), int)]
    found += [(name.replace("_", " "), preflight[name]) for name in ("tokens", "trained_tokens") if name in preflight]
    held = summary.get("heldout", {}).get("n")
    return (*found, *([("pairs held out", held)] if held else []))


def _counts(value: Any) -> Iterator[Count]:
    if isinstance(value, dict) and all(isinstance(n, int) for n in value.values()):
        yield from value.items()


def left_out(summary: Mapping[str, Any]) -> Iterator[Count]:
    """Each reason with its number, `drops` flattened (`multilingual: unfaithful`), and what the preflight did. A stage
    that counts, and left nothing out, has its reasons with 0."""
    yield from _flat(summary.get("drops", {}), "")
    preflight = summary.get("preflight", {})
    for name, told in (("dropped", "too long, dropped"), ("truncated", "too long, cut"), ("tokens_cut", "tokens cut")):
        if name in preflight:
            yield told, preflight[name]


def _flat(drops: Mapping[str, Any], prefix: str) -> Iterator[Count]:
    for name, value in drops.items():
        told = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, f"{told}: ")
        elif isinstance(value, (int, float)):
            yield told, int(value)
