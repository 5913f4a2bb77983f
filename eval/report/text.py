"""The essentials of the page as text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.report.costs import Cost
from eval.report.flow import Round
from eval.report.page import p_value, percent, points
from eval.report.paired import MEANING, Cell, Drift, Line
from posttrain.rounds.view import MARKS, clock, count, gate_lines, grid, money, reward_lines, size

STYLES = {1: "green", -1: "red", 0: ""}
NAMED = 6
"""Reasons of a round that are named here; the page has them all."""
Content = dict[str, Any]


def print_report(content: Content, path: Path, out: Console) -> None:
    """State, suites, languages, reward model, data, drift, cost, and where the page is."""
    state = content["state"]
    if state["missing"]:
        done = state["stages"] - len(state["missing"])
        told = f"not finished: {done} of {state['stages']} stages are done, next is {state['missing'][0]['id']}"
        out.print(Text(told, style="yellow"))
    if content["no_evaluation"]:
        out.print(Text(content["no_evaluation"]))
    for lines in (content["lines"], content["languages"]):
        if lines:
            out.print(_rates(lines, content["titles"]), "")
    if content["lines"]:
        out.print(
            Text("▲ ▼ better, worse than the column compared with: paired 95%, corrected for their number\n", "dim")
        )
    for line in _lines(content):
        out.print(Text(line))
    for step in content["steps"]:
        out.print(Text(_changed(step)))
        out.print(_drift(step.drift))
    out.print("", _costs(content["costs"], content["total"]))
    out.print(Text(f"page {path}"))


def _lines(content: Content) -> Iterator[str]:
    yield from reward_lines(content["told"])
    yield from gate_lines(content["told"])
    for one in content["flow"]:
        yield _flow(one)


def _rates(lines: Sequence[Line], titles: Sequence[str]) -> Table:
    table = grid("", ">n", *(f">{title}" for title in titles))
    for line in lines:
        known = [cell for cell in line.cells if cell is not None]
        table.add_row(line.name, f"{known[-1].n:,}" if known else "", *map(_rate, line.cells))
    return table


def _rate(cell: Cell | None) -> Text:
    if cell is None or not cell.n:
        return Text("–")
    return Text(f"{percent(cell.accuracy)} {MARKS[cell.mark]}", style=STYLES[cell.mark])


def _flow(one: Round) -> str:
    """A round in a line; reasons are added up over capabilities, and the rarer ones are in the page."""
    dropped: Counter[str] = Counter()
    for step in one.steps:
        for reason, number in step.left_out:
            dropped[f"{reason.rpartition(': ')[2]} ({step.name})"] += number
    told = [f"{number:,} {reason}" for reason, number in dropped.most_common(NAMED) if number]
    more = ["…"] if sum(number > 0 for number in dropped.values()) > NAMED else []
    made = f"{one.prompts:,} new prompts, {one.rows:,} rows and {one.pairs:,} pairs trained"
    return (
        f"{f'round {one.number}' if one.number else 'setup'}: {made}; left out {', '.join([*told, *more]) or 'nothing'}"
    )


def _changed(step: Any) -> str:
    told = step.changed
    return (
        f"\n{step.before.title} → {step.after.title}: of {told.prompts:,} prompts {told.improved:,} better, "
        f"{told.worsened:,} worse"
    )


def _drift(found: Sequence[Drift]) -> Table:
    table = grid("drift", ">before", ">after", ">change", ">95%", "")
    for one in found:
        mark = "changed" if one.significant else ""
        interval = f"{points(one.low)} to {points(one.high)}"
        values = [f"{v:.1f}" if one.measure == "length" else percent(v) for v in (one.before, one.after)]
        table.add_row(f"{one.measure} ({MEANING[one.measure]})", *values, f"{points(one.change)}%", interval, mark)
    return table


def _costs(rounds: Sequence[tuple[str, list[Cost], Cost]], total: Cost) -> Table:
    table = grid("", ">time", ">expected", ">tokens", ">tok/s", ">memory", ">cost")
    for name, _, sum_of in rounds:
        table.add_row(name, *_cost(sum_of))
    table.add_row("all stages", *_cost(total))
    return table


def _cost(cost: Cost) -> list[str]:
    charged = money(cost.money) if cost.money else ""
    speed = count(cost.speed) if cost.tokens else ""
    tokens = count(cost.tokens) if cost.tokens else ""
    return [clock(cost.seconds), clock(cost.expected_seconds), tokens, speed, size(cost.memory), charged]


def print_comparison(content: Content, path: Path, out: Console) -> None:
    """Both sides over the common prompts with their paired change, drift, and what was asked differently."""
    for name, side in zip("AB", content["sides"], strict=True):
        unfinished = f"  (not finished: {side['done']} of {side['stages']} stages)"
        out.print(Text(f"{name}  {side['path']}  {side['title']}{unfinished * (side['done'] < side['stages'])}"))
    out.print("")
    for lines in (content["lines"], content["languages"]):
        if lines:
            out.print(_pairs(lines), "")
    out.print(
        Text(f"{content['prompts']:,} prompts that both graded; p by McNemar or sign flips, corrected by Holm", "dim")
    )
    if content["needed"]:
        out.print(Text(_needed(content["needed"])))
    for step in content["steps"]:
        out.print(Text(_changed(step)))
        out.print(_drift(step.drift))
    if content["settings"]:
        out.print(Text(f"\n{len(content['settings'])} settings differ, first {content['settings'][0][0]}"))
    out.print(Text(f"page {path}"))


def _needed(needed: Content) -> str:
    return f"no difference is shown; to find one of {needed['points']:g} points takes {needed['n']:,} prompts"


def _pairs(lines: Sequence[Line]) -> Table:
    table = grid("", ">n", ">A", ">B", ">change", ">95%", ">p", "")
    for line in lines:
        a, b = line.cells
        assert a is not None and b is not None and b.change is not None
        change = b.change
        interval = f"{points(change['low'])} to {points(change['high'])}"
        p = p_value(change.get("p_holm", change["p"]))
        table.add_row(
            line.name, f"{b.n:,}", percent(a.accuracy), percent(b.accuracy), points(change["change"]), interval, p,
            Text(MARKS[b.mark], style=STYLES[b.mark]),
        )  # fmt: skip
    return table
