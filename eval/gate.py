"""The gate of a round: the new checkpoint goes on unless it is worse than the one before beyond its interval.

Its artifact is the checkpoint that is kept (hard links, copies where links fail) with `verdict.json` and the files of
that checkpoint's evaluation in `evaluation/`.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from eval.gate_spec import GateConfig
from eval.table import changes, read_grades
from posttrain.artifacts import LOG, MANIFEST, write_durably
from posttrain.data.tables import iter_table
from posttrain.errors import StoppedByGate, UserError
from posttrain.stages import Job

VERDICT = "verdict.json"
KEPT = "evaluation"


def run(job: Job) -> None:
    verdict = judge(job)
    config: GateConfig = job.config
    if not verdict["passed"] and config.on_fail == "stop":
        raise StoppedByGate(f"round {job.round}: {describe(verdict)}; the gate says stop")
    keep_previous = not verdict["passed"] and config.on_fail == "keep_previous"
    verdict["kept"] = "previous" if keep_previous else "candidate"
    write_durably(job.folder / VERDICT, json.dumps(verdict, indent=1, ensure_ascii=False))
    link_files(_model_folder(job.inputs["previous" if keep_previous else "candidate"]), job.folder)
    link_files(evaluation_folder(job, "previous_evaluation" if keep_previous else "evaluation"), job.folder / KEPT)
    job.rows["checkpoint"] = 1
    job.summary.update(verdict)


def judge(job: Job) -> dict[str, Any]:
    """The paired change from the evaluation before, which parts of it were asked to hold, and which did not."""
    config: GateConfig = job.config
    verdict: dict[str, Any] = {"margin": config.margin, "passed": True, "failed": []}
    if "previous_evaluation" not in job.inputs:
        return {**verdict, "note": "there is no earlier evaluation to compare with"}
    change = changes(
        iter_table(Path(job.inputs["prompts"]), "prompts"),
        read_grades(evaluation_folder(job, "previous_evaluation")),
        read_grades(evaluation_folder(job, "evaluation")),
    )
    if change["overall"]["n"] == 0:
        return {**verdict, "note": "the earlier evaluation has no prompt in common with this one"}
    parts = {"overall": change["overall"], **change["capability"]}
    failed = [name for name in _guarded(config, list(parts)) if parts[name]["high"] < -config.margin]
    return {**verdict, "passed": not failed, "failed": failed, "change": change}


def _guarded(config: GateConfig, parts: list[str]) -> list[str]:
    """The parts that must hold. Raises UserError for a named one that is not among those evaluated."""
    if config.no_worse_than_previous == "none":
        return []
    if config.no_worse_than_previous == "all":
        return parts
    for name in config.no_worse_than_previous:
        if name not in parts:
            raise UserError(f"gate.no_worse_than_previous: {name!r} is not evaluated; evaluated are {', '.join(parts)}")
    return list(config.no_worse_than_previous)


def describe(verdict: dict[str, Any]) -> str:
    """The parts that fell, each with its change and interval in points of a hundred."""
    parts = {"overall": verdict["change"]["overall"], **verdict["change"]["capability"]}
    fallen = []
    for name in verdict["failed"]:
        change, low, high = (100 * parts[name][key] for key in ("change", "low", "high"))
        fallen.append(f"{name} changed by {change:+.1f} points (95% {low:+.1f} to {high:+.1f})")
    return f"{'; '.join(fallen)}, all of the interval below −{100 * verdict['margin']:g}"


def evaluation_folder(job: Job, name: str) -> Path:
    """The evaluation's files: those a gate kept stand in its folder's `evaluation/`."""
    folder = Path(job.inputs[name])
    return folder / KEPT if (folder / KEPT).is_dir() else folder


def _model_folder(model: Path | str) -> Path:
    """A local folder as it is; a hub name is looked up in, or fetched into, the hub's cache."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(model), allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.md"]))


def link_files(source: Path, target: Path) -> None:
    """Give the files at the top of `source`, but what the run itself wrote about it, a second name in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in (MANIFEST, LOG, VERDICT):
            destination = target / path.name
            destination.unlink(missing_ok=True)
            try:
                os.link(path.resolve(), destination)
            except OSError:
                shutil.copyfile(path, destination)
