"""The table of suites: every evaluation's rates, and marks only where a paired interval says that something changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.drift import MEASURES, drift
from eval.report.charts import Dot
from eval.report.evaluations import Evaluation
from eval.report.page import percent
from eval.statistics import rate
from eval.table import changes, clusters_of, split_by
from posttrain.data.rows import Prompt
from posttrain.rounds.report import direction

OVERALL = "overall"
Group = Callable[[Prompt], str]
Change = Mapping[str, Any]
"""As `eval.table.changes` gives it: n, change, low, high, significant, p and, of a part, p_holm."""


@dataclass(frozen=True)
class Cell:
    """A rate with its interval; `mark` is 1 better, −1 worse than the column compared with, 0 not shown to differ."""

    n: int
    accuracy: float
    low: float
    high: float
    mark: int = 0
    change: Change | None = None


@dataclass(frozen=True)
class Line:
    """A suite, a capability or a language; None where a column has nothing of it."""

    name: str
    cells: tuple[Cell | None, ...]


def by_suite(columns: Sequence[Evaluation]) -> list[Line]:
    """Overall, then every capability (a suite is one)."""
    names = [OVERALL, *dict.fromkeys(name for column in columns for name in column.results["capability"])]
    return [Line(name, tuple(_cell(column, name) for column in columns)) for name in names]


def _cell(column: Evaluation, name: str) -> Cell | None:
    overall = name == OVERALL
    found = column.results[OVERALL] if overall else column.results["capability"].get(name)
    change = column.results.get("change", {})
    return _with_change(found, change.get(OVERALL) if overall else change.get("capability", {}).get(name))


def _with_change(found: Mapping[str, Any] | None, change: Change | None) -> Cell | None:
    if found is None:
        return None
    mark = direction(change) if change else 0
    return Cell(found["n"], found["accuracy"], found["low"], found["high"], mark, change)


def by_language(columns: Sequence[Evaluation]) -> list[Line]:
    """Every language, where there is more than one."""
    names = sorted({name for column in columns for name in column.results["language"]}, key=lambda n: (n != "en", n))
    if len(names) < 2:
        return []
    of_id = {column.id: column for column in columns}
    changed = [
        split_changes(of_id[column.before], column, lambda prompt: prompt.language) if column.before in of_id else {}
        for column in columns
    ]
    return [
        Line(name, tuple(_with_change(c.results["language"].get(name), d.get(name)) for c, d in pairs))
        for name in names
        for pairs in [list(zip(columns, changed, strict=True))]
    ]


def split_changes(before: Evaluation, after: Evaluation, group: Group) -> dict[str, Change]:
    """The paired change of each group of the prompts that both have."""
    regrouped = [replace(prompt, capability=group(prompt)) for prompt in common_prompts(before, after)]
    found: dict[str, Change] = changes(regrouped, before.grades, after.grades)["capability"]
    return found


def common_prompts(before: Evaluation, after: Evaluation) -> list[Prompt]:
    """Prompts that both asked and graded by the same check, in id order."""
    other = before.prompts
    return [
        prompt
        for id, prompt in sorted(after.prompts.items())
        if id in other and other[id].check == prompt.check and id in before.grades and id in after.grades
    ]


def two_columns(before: Evaluation, after: Evaluation, prompts: Sequence[Prompt], group: Group | None) -> list[Line]:
    """Both rates over the common prompts, and the change from one to the other: overall, or by group."""
    if group is None:
        parts: dict[str, list[Prompt]] = {OVERALL: list(prompts)}
        change: dict[str, Change] = {OVERALL: changes(prompts, before.grades, after.grades)[OVERALL]}
    else:
        parts = split_by(prompts, [group(prompt) for prompt in prompts])
        change = split_changes(before, after, group)
    return [Line(name, (_rated(before, own, None), _rated(after, own, change[name]))) for name, own in parts.items()]


def _rated(column: Evaluation, prompts: Sequence[Prompt], change: Change | None) -> Cell:
    found = rate([column.grades[prompt.id] for prompt in prompts], clusters_of(prompts))
    return Cell(found.n, found.accuracy, found.low, found.high, direction(change) if change else 0, change)


def dots_of(lines: Sequence[Line], titles: Sequence[str]) -> list[tuple[str, list[Dot]]]:
    """The table as dots with intervals, in percent."""
    return [
        (
            line.name,
            [
                Dot(i, 100 * c.accuracy, 100 * c.low, 100 * c.high, f"{titles[i]}: {percent(c.accuracy)} (n={c.n:,})")
                for i, c in enumerate(line.cells)
                if c is not None and c.n
            ],
        )
        for line in lines
    ]


@dataclass(frozen=True)
class Drift:
    """How one measure of the answers moved."""

    measure: str
    n: int
    before: float
    after: float
    change: float
    low: float
    high: float
    significant: bool


MEANING = {
    "length": "tokens of an answer",
    "refusals": "refuses where it should not",
    "language": "another language than the prompt's",
    "repetition": "words that only repeat",
}


def drifts(before: Evaluation, after: Evaluation) -> list[Drift]:
    """What no grade sees, over the prompts that both answered; of `length` the change is relative, else in shares."""
    prompts = [after.prompts[id] for id in sorted(after.prompts.keys() & before.prompts.keys())]
    found = []
    for measure in MEASURES:
        said = drift(measure, prompts, before.answers, after.answers)
        if said["n"]:
            names = ("n", "before", "after", "change", "low", "high", "significant")
            found.append(Drift(measure, *(said[name] for name in names)))
    return found
