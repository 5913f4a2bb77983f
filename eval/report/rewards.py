"""How the reward model scored, how far it is to be trusted, and what choosing by it brought."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from eval.report.charts import NARROW, Series, bars, distributions, label, lines
from posttrain.data.tables import iter_batches, iter_table
from posttrain.inspect.run import Run, Stage

REPORT = "report.json"
CHOSEN = {"reward": "by reward", "combined": "by all scores"}
BEST = {"mean": "any one", "reward": "best by reward", "votes": "most votes", "combined": "best by all scores"}
"""How an answer is taken from the K, in the order of the table."""
Rates = Mapping[str, Any]


@dataclass(frozen=True)
class RewardModel:
    """A reward model on pairs it never saw: `rates` by part, charts of its gaps and of its calibration."""

    id: str
    rates: tuple[tuple[str, Rates], ...]
    charts: tuple[Markup, ...]
    ece: float | None
    length_correlation: float | None


@dataclass(frozen=True)
class Scoring:
    """One round's scoring: best of n, the rewards of all candidates and of those chosen, the margins of the pairs."""

    id: str
    best_names: tuple[str, ...]
    best: tuple[tuple[str, Rates], ...]
    charts: tuple[Markup, ...]


def reward_models(run: Run) -> list[RewardModel]:
    found = []
    for stage in _providing(run, "reward_model"):
        path = stage.folder / REPORT
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else stage.manifest.summary
        report = report if "accuracy" in report else stage.manifest.summary.get("heldout", {})
        if report.get("n"):
            found.append(_reward_model(stage.id, report))
    return found


def _reward_model(id: str, report: Mapping[str, Any]) -> RewardModel:
    rates = [("overall", report)]
    rates += list(report.get("by_capability", {}).items())
    length = report.get("length", {})
    more = {"matched": "length matched", "better_longer": "better is longer", "better_shorter": "better is shorter"}
    rates += [(told, length[name]) for name, told in more.items() if name in length]
    calibration = report.get("calibration", {})
    charts = _gaps(report.get("histogram", [])), _calibration(calibration.get("bins", []))
    ece = calibration.get("ece")
    return RewardModel(id, tuple(rates), tuple(filter(None, charts)), ece, length.get("correlation"))


def _gaps(bins: list[Mapping[str, Any]]) -> Markup:
    """The gap of reward between the better and the worse answer; below zero the model is wrong."""
    items = [
        ("<" if b["low"] is None else label(b["low"]), float(b["n"]), b["high"] is not None and b["high"] <= 0)
        for b in bins
    ]
    return bars("reward of the better answer minus the other's", items, "from this gap on")


def _calibration(bins: list[Mapping[str, Any]]) -> Markup:
    points = [(b["expected"], b["observed"]) for b in bins]
    ideal = Series("as it should be", [(0.5, 0.5), (1.0, 1.0)], faint=True)
    seen = Series("the better one wins", points, dots=True)
    return lines("calibration", [seen, ideal], "expected by the model", "observed") if points else Markup("")


def scorings(run: Run) -> list[Scoring]:
    """Every finished scoring, with the selection that read it."""
    return [_scoring(run, stage) for stage in _providing(run, "scores")]


def _scoring(run: Run, stage: Stage) -> Scoring:
    best = stage.manifest.summary.get("best_of_k", {})
    names = tuple(name for name in (*BEST, "any") if any(name in rates for rates in best.values()))
    charts = [*_best_of_n(stage.manifest.summary.get("best_of_n", {}))]
    charts += [_rewards(run, stage), _margins(run, stage)]
    return Scoring(stage.id, names, tuple(best.items()), tuple(filter(None, charts)))


def _best_of_n(curves: Mapping[str, Any]) -> list[Markup]:
    """Right answers, and rewards, against n, by the scorer that chooses; each doubling of n is one step."""
    charts = []
    for value, title, factor in (("true", "right answers, %", 100), ("reward", "reward", 1)):
        series = [
            Series(
                CHOSEN.get(scorer, scorer),
                [(math.log2(point["n"]), factor * point[value]) for point in points if value in point],
                dots=True,
            )
            for scorer, points in curves.items()
        ]
        names = {math.log2(point["n"]): str(point["n"]) for points in curves.values() for point in points}
        charts.append(lines(f"best of n: {title}", series, "n", x_names=names))
    return charts


def _rewards(run: Run, stage: Stage) -> Markup:
    """The reward of every candidate, and of those that were chosen to be trained on."""
    counts = _counts(run, stage)
    every = [
        score.value
        for score in iter_table(stage.folder, "scores")
        if score.scorer == "reward"
        for _ in range(counts[score.response_id])
    ]
    groups = [("all candidates", every), ("chosen for SFT", _column(run, stage, "rows", "reward"))]
    return distributions("reward of the candidates", groups, "reward", NARROW)


def _counts(run: Run, scored: Stage) -> dict[str, int]:
    """How many samples gave each response that was scored."""
    sources = {entry["id"]: entry for entry in run.plan["stages"]}[scored.id]["inputs"]["responses"]
    folders = [run.stage(source).folder for source in (sources if isinstance(sources, list) else [sources])]
    return {response.id: response.count for folder in folders for response in iter_table(folder, "responses")}


def _margins(run: Run, stage: Stage) -> Markup:
    margins = _column(run, stage, "pairs", "margin")
    return distributions("score of chosen minus rejected", [("pairs for DPO", margins)], "margin", NARROW)


def _column(run: Run, scored: Stage, table: str, column: str) -> list[float]:
    """A column of what was selected by these scores."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    readers = [s for s in run.stages if entries[s.id]["inputs"].get("scores") == scored.id and table in s.tables]
    return [
        value
        for stage in readers
        for batch in iter_batches(stage.folder, table, [column])
        for value in batch[column].to_pylist()
        if value is not None
    ]


def _providing(run: Run, kind: str) -> list[Stage]:
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    return [stage for stage in run.stages if kind in entries[stage.id]["provides"]]
