"""`posttrain report RUN`: everything that a run came to, on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.report.charts import dots
from eval.report.costs import ancestry, by_round, costs, lineage, together, versions
from eval.report.evaluations import Evaluation, evaluations, kept, wants_evaluation
from eval.report.examples import Changed, changed
from eval.report.flow import flow
from eval.report.page import write_page
from eval.report.paired import MEANING, Drift, Line, by_language, by_suite, common_prompts, dots_of, drifts, two_columns
from eval.report.rewards import BEST, reward_models, scorings
from eval.report.suites import contamination, suites
from eval.report.text import print_report
from eval.report.training import trainings
from posttrain.inspect.run import Run, load
from posttrain.rounds.report import PAGE, assemble

Content = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """From one evaluation to another: what changed in the answers."""

    before: Evaluation
    after: Evaluation
    drift: tuple[Drift, ...]
    changed: Changed


def report(root: Path, out: Path | None = None, console: Console | None = None) -> Path:
    """Write the page, by default `report.html` in the run's root, and print the same essentials where a console is
    given. Raises UserError when `root` is no run."""
    path = out or root / PAGE
    content = gather(root)
    write_page(path, "report.html.jinja", content)
    if console is not None:
        print_report(content, path, console)
    return path


def gather(root: Path) -> Content:
    """All that the page and the terminal tell."""
    run, told = load(root), assemble(root)
    columns = evaluations(run)
    parts = costs(run)
    return {
        "root": str(root),
        "name": run.plan["name"],
        "rounds": run.plan["rounds"],
        "state": _state(told),
        "told": told,
        "flow": flow(run),
        "trainings": trainings(run),
        "reward_models": reward_models(run),
        "scorings": scorings(run),
        "costs": [(name, own, together(name, own)) for name, own in by_round(parts)],
        "total": together("all stages", parts),
        "slowest": max((part.seconds for part in parts), default=0.0),
        "lineage": lineage(run),
        "ancestry": ancestry(run, run.plan["final"]) if told["final"] else [],
        "versions": versions(run),
        "meaning": MEANING,
        "best_labels": BEST | {"any": "any of the K is right"},
        **_evaluated(run, columns),
    }


def _state(told: Content) -> Content:
    """How far the run has come: the number of stages, those not finished, and how its last command ended."""
    missing = [stage for stage in told["stages"] if stage["state"] != "finished"]
    last = told["history"][-1] if told["history"] else None
    return {"stages": len(told["stages"]), "missing": missing, "ended": last["ended"] if last else "not yet"}


def _evaluated(run: Run, columns: list[Evaluation]) -> Content:
    """What rests on evaluations; without any, a sentence in their place."""
    titles = [column.title for column in columns]
    lines, languages = by_suite(columns) if columns else [], by_language(columns)
    final = kept(run, columns) if columns else None
    return {
        "columns": columns,
        "titles": titles,
        "kept_ids": _kept_ids(run, columns),
        "lines": lines,
        "languages": languages,
        "chart": _chart("accuracy by suite, with 95% intervals", lines, titles),
        "suites": suites(columns),
        "final": final,
        "verdict": _verdict(columns, final),
        "contamination": contamination(final) if final else [],
        "steps": _steps(run, columns, final),
        "no_evaluation": "" if columns else _without(run),
    }


def _without(run: Run) -> str:
    if wants_evaluation(run):
        return "No evaluation has finished yet."
    return "The recipe has no evaluation, so nothing is said of better or worse: add `evaluate` to it."


def _kept_ids(run: Run, columns: list[Evaluation]) -> set[str]:
    """The evaluations of what each round ended with."""
    found = [kept(run, columns, number + 1) for number in range(1, run.plan["rounds"] + 1)]
    return {column.id for column in found if column is not None}


def _chart(title: str, lines: list[Line], titles: list[str]) -> Any:
    return dots(title, dots_of(lines, titles), titles, "% right")


def _verdict(columns: list[Evaluation], final: Evaluation | None) -> Line | None:
    """The first evaluation against that of what the run ends with, overall, on the prompts of both."""
    if final is None or final.id == columns[0].id:
        return None
    prompts = common_prompts(columns[0], final)
    return two_columns(columns[0], final, prompts, None)[0] if prompts else None


def _steps(run: Run, columns: list[Evaluation], final: Evaluation | None) -> list[Step]:
    """What the last round changed, then what all of them did, where that is another thing."""
    if final is None:
        return []
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    starts = [kept(run, columns, entries[final.id]["round"]), columns[0]]
    unique = {start.id: start for start in starts if start is not None and start.id != final.id}
    return [step(start, final) for start in unique.values()]


def step(before: Evaluation, after: Evaluation) -> Step:
    return Step(before, after, tuple(drifts(before, after)), changed(before, after))
