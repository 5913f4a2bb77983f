"""The gate of a round: the new checkpoint goes on unless it is worse than the one before beyond its interval, below a
minimum, or its answers have drifted.

Its artifact is the checkpoint that is kept (hard links, copies where links fail) with `verdict.json` and the files of
that checkpoint's evaluation in `evaluation/`.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from eval.drift import drift
from eval.gate_spec import GateConfig
from eval.statistics import paired_change
from eval.table import REPORT, changes, clusters_of, read_grades, split_by
from posttrain.artifacts import LOG, MANIFEST, write_durably
from posttrain.checks.intervals import Z
from posttrain.data.rows import Prompt, Response
from posttrain.data.tables import iter_table
from posttrain.engines.folders import model_folder
from posttrain.errors import StoppedByGate, UserError
from posttrain.stages import Job

VERDICT = "verdict.json"
KEPT = "evaluation"
FALSE_ALARMS = 0.04
"""The share of rounds without any change in which the whole gate may fail: a point below the 5 percent that are
promised, since the normal curve's tails are a little light for suites of a hundred prompts."""
Verdict = dict[str, Any]


def run(job: Job) -> None:
    verdict = judge(job)
    config: GateConfig = job.config
    if not verdict["passed"] and config.on_fail == "stop":
        raise StoppedByGate(f"round {job.round}: {describe(verdict)}; the gate says stop")
    keep_previous = not verdict["passed"] and config.on_fail == "keep_previous"
    verdict["kept"] = "previous" if keep_previous else "candidate"
    write_durably(job.folder / VERDICT, json.dumps(verdict, indent=1, ensure_ascii=False))
    link_files(model_folder(job.inputs["previous" if keep_previous else "candidate"]), job.folder)
    kept = earlier_evaluation(job) if keep_previous else evaluation_folder(job, "evaluation")
    if kept is not None:
        link_files(kept, job.folder / KEPT)
    job.rows["checkpoint"] = 1
    job.summary.update(verdict)


def judge(job: Job) -> Verdict:
    """The paired change from the evaluation before, what was asked to hold, and what did not: `failed` by name, and
    `reasons` in words."""
    config: GateConfig = job.config
    verdict: Verdict = {"margin": config.margin, "passed": True, "failed": [], "reasons": []}
    _minimum(job, verdict)
    earlier = earlier_evaluation(job)
    if earlier is None:
        return _closed({**verdict, "note": "there is no earlier evaluation to compare with"})
    prompts = [prompt for folder in job.inputs["prompts"] for prompt in iter_table(Path(folder), "prompts")]
    before, after = read_grades(earlier), read_grades(evaluation_folder(job, "evaluation"))
    verdict["change"] = changes(prompts, before, after)
    if verdict["change"]["overall"]["n"] == 0:
        del verdict["change"]
        return _closed({**verdict, "note": "the earlier evaluation has no prompt in common with this one"})
    guarded = _guarded(config, ["overall", *verdict["change"]["capability"]])
    limits = config.drift.limits
    z = reach(len(guarded) + len(limits))
    _falls(verdict, guarded, fall_of(prompts, before, after, guarded, z))
    _drifts(job, verdict, prompts, limits, z)
    return _closed(verdict)


def _closed(verdict: Verdict) -> Verdict:
    return {**verdict, "passed": not verdict["failed"]}


def reach(checks: int) -> float:
    """Standard errors from a change to the end of its interval: 95%, and more where so many checks would else raise
    more false alarms together (Bonferroni, each check being one-sided)."""
    return max(Z, NormalDist().inv_cdf(1 - FALSE_ALARMS / max(1, checks)))


def _minimum(job: Job, verdict: Verdict) -> None:
    config: GateConfig = job.config
    if not config.minimum:
        return
    report = json.loads((evaluation_folder(job, "evaluation") / REPORT).read_text(encoding="utf-8"))
    rates = {"overall": report["overall"], **report["capability"]}
    for name, least in config.minimum.items():
        if name not in rates:
            raise UserError(f"gate.minimum: {name!r} is not evaluated; evaluated are {', '.join(rates)}")
        accuracy = rates[name]["accuracy"]
        if accuracy < least:
            verdict["failed"].append(name)
            verdict["reasons"].append(f"{name} is at {100 * accuracy:.1f}, below its minimum of {100 * least:g}")


def fall_of(
    prompts: Sequence[Prompt], before: Mapping[str, float], after: Mapping[str, float], names: Sequence[str], z: float
) -> dict[str, float]:
    """The upper end of each guarded part's interval, `z` standard errors from its change."""
    paired = [prompt for prompt in prompts if prompt.id in before and prompt.id in after]
    parts = {**split_by(paired, [prompt.capability for prompt in paired]), "overall": paired}
    upper = {}
    for name in names:
        own = parts[name]
        pairs = [before[p.id] for p in own], [after[p.id] for p in own]
        upper[name] = paired_change(*pairs, clusters_of(own), z).high
    return upper


def _falls(verdict: Verdict, guarded: Sequence[str], upper: Mapping[str, float]) -> None:
    parts = {"overall": verdict["change"]["overall"], **verdict["change"]["capability"]}
    for name in guarded:
        parts[name]["upper"] = upper[name]
        if upper[name] < -verdict["margin"]:
            change, low, high = (100 * parts[name][key] for key in ("change", "low", "high"))
            verdict["failed"].append(name)
            verdict["reasons"].append(
                f"{name} changed by {change:+.1f} points (95% {low:+.1f} to {high:+.1f}), "
                f"all of the gate's interval below −{100 * verdict['margin']:g}"
            )


def _drifts(job: Job, verdict: Verdict, prompts: Sequence[Prompt], limits: Mapping[str, float], z: float) -> None:
    if not limits:
        return
    earlier = earlier_evaluation(job)
    assert earlier is not None
    before, after = _answers(earlier), _answers(evaluation_folder(job, "evaluation"))
    verdict["drift"] = {}
    for name, limit in limits.items():
        found = _moved(job, prompts, after, z) if name == "kl" else drift(name, prompts, before, after, z)
        verdict["drift"][name] = {**found, "limit": limit}
        if found["low"] > limit or (name == "length" and found["high"] < -limit):
            verdict["failed"].append(f"drift of {name}")
            verdict["reasons"].append(
                f"drift of {name}: {found['before']:.3g} before, {found['after']:.3g} now, beyond {limit:g}"
            )


def _moved(job: Job, prompts: Sequence[Prompt], after: Mapping[str, Response], z: float) -> dict[str, Any]:
    """The divergence of the candidate from the checkpoint before, on some of the candidate's answers. Transcripts of
    dialogs are left out, and what the harness begins itself."""
    from eval.divergence import divergence, summed  # torch, which no other part of the gate needs

    plain = [
        (prompt, after[prompt.id])
        for prompt in sorted(prompts, key=lambda prompt: prompt.id)
        if prompt.id in after and prompt.check and prompt.check.name not in ("dialog", "harness")
    ]
    step = max(1, -(-len(plain) // job.config.drift.kl_answers))
    return summed(divergence(job.inputs["candidate"], job.inputs["previous"], plain[::step], job.machine), z)


def _answers(folder: Path) -> dict[str, Response]:
    """The first answer to each prompt."""
    found: dict[str, Response] = {}
    for response in iter_table(folder, "responses"):
        found.setdefault(response.prompt_id, response)
    return found


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


def describe(verdict: Verdict) -> str:
    """What did not hold, in words."""
    return "; ".join(verdict["reasons"])


def evaluation_folder(job: Job, name: str) -> Path:
    """The evaluation's files: those a gate kept stand in its folder's `evaluation/`."""
    folder = Path(job.inputs[name])
    return folder / KEPT if (folder / KEPT).is_dir() else folder


def earlier_evaluation(job: Job) -> Path | None:
    """The evaluation to compare with; None where there is none: a gate that kept a checkpoint which nobody had
    evaluated has no files of one."""
    if "previous_evaluation" not in job.inputs:
        return None
    folder = evaluation_folder(job, "previous_evaluation")
    return folder if (folder / REPORT).is_file() else None


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
