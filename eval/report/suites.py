"""What each kind of suite says beyond its mean, as tables that need not know the kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.evaluations import Evaluation

MUTE = ("kind", "heat")
"""Of a suite's summary, what is no number of a table."""


@dataclass(frozen=True)
class Heat:
    """Recall of single needles: lengths across, depths down."""

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    recall: Mapping[tuple[int, float], float]


@dataclass(frozen=True)
class Suite:
    """Each number by its name, one value a column; the heat map is of the last column that has one."""

    name: str
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    heat: Heat | None


def suites(columns: Sequence[Evaluation]) -> list[Suite]:
    """All suites; held-out capabilities are none, and have the table of rates alone."""
    names = dict.fromkeys(name for column in columns for name in column.results.get("suites", {}))
    return [_suite(name, [column.results.get("suites", {}).get(name, {}) for column in columns]) for name in names]


def _suite(name: str, summaries: Sequence[Mapping[str, Any]]) -> Suite:
    flat = [dict(numbers(summary)) for summary in summaries]
    labels = dict.fromkeys(label for own in flat for label in own)
    heats = [summary["heat"] for summary in summaries if summary.get("heat")]
    lines = tuple((label, tuple(_shown(own.get(label)) for own in flat)) for label in labels)
    return Suite(name, lines, _heat(heats[-1]) if heats else None)


def numbers(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a summary with its path as its name; of a rate with its interval, the rate."""
    for name, value in summary.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            if "accuracy" in value:
                yield label, value["accuracy"]
            else:
                yield from numbers(value, f"{label} · ")
        elif isinstance(value, (int, float)) and name not in MUTE:
            yield label, value


def _shown(value: float | None) -> str:
    """Shares in percent; counts and other numbers as they are."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.1f}" if 0 <= value <= 1 else f"{value:.3g}"


def _heat(cells: Sequence[Mapping[str, Any]]) -> Heat:
    lengths = tuple(sorted({cell["length"] for cell in cells}))
    depths = tuple(sorted({cell["depth"] for cell in cells}))
    return Heat(lengths, depths, {(cell["length"], cell["depth"]): cell["recall"] for cell in cells})


@dataclass(frozen=True)
class Contaminated:
    """A suite's prompts that stand in the training rows, and the accuracy on the others."""

    name: str
    prompts: int
    every: float
    clean: float | None


def contamination(column: Evaluation) -> list[Contaminated]:
    """Of every suite; nothing where the run did not look."""
    every = column.results["capability"]
    return [
        Contaminated(name, part["contaminated"], every[name]["accuracy"], (part["clean"] or {}).get("accuracy"))
        for name, part in column.results.get("contamination", {}).items()
        if name in every
    ]
