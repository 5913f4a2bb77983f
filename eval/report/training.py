"""Training curves, from the `training.jsonl` that every training stage keeps."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eval.report.charts import Series, lines, smooth
from eval.report.evaluations import KEPT
from posttrain.inspect.run import Run, Stage

FILE = "training.jsonl"
CHARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("loss", {"loss": "loss", "loss/preference": "preference", "loss/nll": "nll"}),
    ("margin", {"rewards/margin": "margin", "margin": "margin"}),
    ("accuracy", {"rewards/accuracy": "accuracy", "accuracy": "accuracy"}),
    ("log-probability, change", {"logps/chosen_change": "chosen", "logps/rejected_change": "rejected"}),
    ("KL from the reference", {"kl": "KL"}),
    ("gradient norm", {"grad_norm": "gradient norm"}),
)
"""Title → the values of a step drawn together, with the name each has in the legend."""
FACTS = {
    "rows": "{:,} rows",
    "pairs": "{:,} pairs",
    "prompts": "{:,} prompts",
    "steps": "{:,} steps",
    "trained_tokens": "{:,} trained tokens",
    "loss_first": "loss {:.3g} at first",
    "loss_last": "{:.3g} at last",
}
"""What the summary says of a training, in words."""


@dataclass(frozen=True)
class Training:
    """One training stage: its charts, a line of facts, a sentence where it warned, and what it told by capability."""

    id: str
    charts: tuple[Markup, ...]
    facts: tuple[str, ...]
    warning: str
    by_capability: dict[str, dict[str, float]]


def trainings(run: Run) -> list[Training]:
    """Every finished training; what a gate kept is the training before it and not told twice."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    own = [stage for stage in run.stages if KEPT not in entries[stage.id]["provides"]]
    return [_training(stage) for stage in own if (stage.folder / FILE).is_file()]


def _training(stage: Stage) -> Training:
    steps = read_steps(stage.folder / FILE)
    summary = stage.manifest.summary
    facts = [text.format(summary[name]) for name, text in FACTS.items() if isinstance(summary.get(name), (int, float))]
    charts = [chart for title, names in CHARTS if (chart := _chart(title, names, steps))]
    groups = {name: own for name, own in summary.get("by_capability", {}).items() if isinstance(own, dict)}
    return Training(stage.id, tuple(charts), tuple(facts), summary.get("warning", ""), groups)


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The logged steps; a line that a kill has torn is left out."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(json.loads(line))
        except ValueError:
            continue
    return [step for step in steps if isinstance(step, dict)]


def _chart(title: str, names: dict[str, str], steps: list[dict[str, Any]]) -> Markup:
    """Each value faint as it was logged, with its running mean."""
    series = []
    for name, told in names.items():
        points = [(float(step["step"]), float(step[name])) for step in steps if _known(step, name)]
        if len(points) > 1:
            thin, calm = smooth(points)
            series += [Series(told, thin, faint=True), Series(told, calm)]
    return lines(title, series, "step")


def _known(step: dict[str, Any], name: str) -> bool:
    values = step.get("step"), step.get(name)
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
