"""What a run came to: `report.json`, made from plan.json and the manifests, so that it can be made at any time."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.artifacts import PART, Manifest, read_manifest
from posttrain.errors import UserError
from posttrain.rounds.plan import STORE
from posttrain.rounds.record import read_plan, write_if_new

REPORT = "report.json"
PAGE = "report.html"
"""What `posttrain report` makes of the run."""
CLAIMED = 0.05
"""The p, corrected for all suites looked at together, below which a suite's change is claimed."""


def write_report(root: Path, made: dict[str, float], wall: float, ended: str) -> dict[str, Any]:
    """Write and return the report. `made` has the seconds of each stage this command ran; `wall` is its own, from the
    start of its process."""
    history = _history(root)
    if made or ended != "done":
        work = sum(made.values())
        history.append({
            "ended": ended, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "wall_seconds": wall,
            "stage_seconds": work, "other_seconds": wall - work, "stages": made,
        })  # fmt: skip
    report = assemble(root) | {"history": history}
    write_if_new(root / REPORT, report)
    return report


def assemble(root: Path) -> dict[str, Any]:
    """All results so far. Raises UserError when `root` is not the root of a run."""
    plan = read_plan(root)
    manifests = {stage["id"]: _manifest(root / STORE / stage["folder"]) for stage in plan["stages"]}
    finished = [(stage, manifest) for stage in plan["stages"] if (manifest := manifests[stage["id"]])]
    return {
        "name": plan["name"],
        "final": next((stage["folder"] for stage, _ in finished if stage["id"] == plan["final"]), None),
        "evaluations": _summaries(finished, "evaluation"),
        "gates": _summaries(finished, "evaluation_kept"),
        "reward_models": _summaries(finished, "reward_model"),
        "scores": _summaries(finished, "scores"),
        "stages": [_stage(stage, manifests[stage["id"]], root) for stage in plan["stages"]],
        "peak_memory": max((manifest.measured.get("memory", 0) for _, manifest in finished), default=0),
        "history": _history(root),
    }


def _summaries(finished: list[tuple[dict[str, Any], Manifest]], kind: str) -> list[dict[str, Any]]:
    return [{"id": s["id"], "title": s["title"], **m.summary} for s, m in finished if kind in s["provides"]]


def _stage(stage: dict[str, Any], manifest: Manifest | None, root: Path) -> dict[str, Any]:
    entry = {"id": stage["id"], "folder": stage["folder"], "state": "finished", "expected": stage["expected"]}
    if manifest is None:
        begun = (root / STORE / (stage["folder"] + PART)).is_dir()
        return {**entry, "state": "begun" if begun else "to run"}
    return {**entry, "rows": manifest.rows, "measured": manifest.measured, "summary": manifest.summary}


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except UserError:
        return None  # broken: the next run makes it again


def _history(root: Path) -> list[dict[str, Any]]:
    try:
        history = json.loads((root / REPORT).read_text(encoding="utf-8"))["history"]
        return history if isinstance(history, list) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def other_share(command: Mapping[str, Any]) -> float:
    """Of a command's time, an entry of `history`, what was no stage's own work: starts, imports, hashing, waiting. What
    an interrupted stage did is in it too."""
    return float(command["other_seconds"] / command["wall_seconds"]) if command["wall_seconds"] else 0.0


def direction(change: Mapping[str, Any]) -> int:
    """1 for better, −1 for worse, 0 where that is not shown: the paired 95% interval leaves zero out and, of one suite
    among several, Holm's p is below CLAIMED."""
    if not change["significant"] or change.get("p_holm", 0.0) >= CLAIMED:
        return 0
    return 1 if change["change"] > 0 else -1
