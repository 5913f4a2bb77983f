"""What the quick start and its ablations gain, over several seeds, as the tables of docs/results.md.

    python benchmarks/quickstart.py --seeds 17 18 19 20 21 --write

Runs each recipe with each seed through the command line (recipes of one seed share a root, so that what they have in
common is computed once) and compares checkpoints pairwise on the same held-out prompts. Runs that are finished are not
run again. With --write the tables replace those in docs/results.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT

from eval.table import read_grades
from posttrain.checks.intervals import paired_difference
from posttrain.data.tables import iter_table

ABLATIONS = ("teacher_only", "teacher_all", "random_of_k", "verifier", "no_dpo")
RECIPES = ("quickstart", *(f"quickstart/{name}" for name in ABLATIONS))
RESULTS = ROOT / "docs" / "results.md"
MARKS = ("<!-- results -->", "<!-- end of results -->")


@dataclass(frozen=True)
class Outcome:
    """One recipe with one seed: its report, and grades by prompt of base and of each round's kept checkpoint."""

    recipe: str
    seed: int
    report: dict[str, Any]
    grades: list[dict[str, float]]
    capability: dict[str, str]


def run(recipe: str, seed: int, root: Path, sets: list[str]) -> Outcome:
    """Bring the recipe to its end in `root` and read what came out."""
    command = [sys.executable, "-m", "posttrain", "run", recipe, "--root", str(root), "--set", f"seed={seed}"]
    for assignment in sets:
        command += ["--set", assignment]
    subprocess.run(command, check=True, stdout=sys.stderr)
    report = json.loads((root / "report.json").read_text(encoding="utf-8"))
    store = root / "store"
    folder = {stage["id"]: store / stage["folder"] for stage in report["stages"]}
    kept = [folder["setup/evaluate-base"]]
    kept += [folder[gate["id"]] / "evaluation" for gate in report["gates"]]
    prompts = iter_table(folder["setup/heldout"], "prompts")
    return Outcome(recipe, seed, report, [read_grades(k) for k in kept], {p.id: p.capability for p in prompts})


def change(outcome: Outcome, before: int, after: int, capability: str | None = None) -> Any:
    """Paired difference between two columns, over all prompts or one capability's."""
    ids = [i for i, name in outcome.capability.items() if capability in (None, name)]
    return paired_difference(*([outcome.grades[column][i] for i in ids] for column in (before, after)))


def accuracy(outcome: Outcome, column: int, capability: str | None = None) -> float:
    ids = [i for i, name in outcome.capability.items() if capability in (None, name)]
    return sum(outcome.grades[column][i] for i in ids) / len(ids)


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def interval(value: Any) -> str:
    return f"{100 * value.change:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def seeds_table(outcomes: list[Outcome]) -> list[str]:
    """One line a seed: accuracies, paired gains of both rounds, and what the reward model did."""
    lines = [
        "| seed | base | round 1 | round 2 | base → round 1 | round 1 → round 2 | worse than base at the end "
        "| reward model, held-out pairs, r1 · r2 | best of K against mean, r1 · r2 | wall | peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        worse = [c for c in sorted(set(o.capability.values())) if change(o, 0, 2, c).high < 0]
        models = " · ".join(
            f"{m['heldout']['accuracy']:.2f} (n {m['heldout']['n']})" for m in o.report["reward_models"]
        )
        best = " · ".join(_best_of_k(s) for s in o.report["scores"])
        wall = max(h["wall_seconds"] for h in o.report["history"])
        lines.append(
            f"| {o.seed} | {' | '.join(points(accuracy(o, i)) for i in range(3))} | {interval(change(o, 0, 1))} "
            f"| {interval(change(o, 1, 2))} | {', '.join(worse) or 'none'} | {models} | {best} | {wall:.0f} s "
            f"| {o.report['peak_memory'] / 2**30:.1f} GiB |"
        )
    return lines


def _best_of_k(summary: dict[str, Any]) -> str:
    everything = summary["best_of_k"]["all"]
    return f"{everything['combined']:.2f} / {everything['mean']:.2f}"


def ablations_table(outcomes: list[Outcome], loop: Outcome) -> list[str]:
    """One line a recipe of one seed: accuracies by round and capability, and the paired difference of the full loop."""
    names = sorted(set(loop.capability.values()))
    lines = [
        f"| recipe (seed {loop.seed}) | round 1 | round 2 | {' | '.join(names)} | the full loop minus this, round 2 |",
        "|---|---|---|" + "---|" * (len(names) + 1),
    ]
    for o in outcomes:
        ids = list(o.capability)
        gap = paired_difference([o.grades[2][i] for i in ids], [loop.grades[2][i] for i in ids])
        lines.append(
            f"| {o.recipe} | {points(accuracy(o, 1))} | {points(accuracy(o, 2))} "
            f"| {' | '.join(points(accuracy(o, 2, name)) for name in names)} | {'' if o is loop else interval(gap)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19, 20, 21])
    parser.add_argument("--ablation-seed", type=int, default=17)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--root", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--set", action="append", default=[], dest="sets", help="passed on to every run")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    chosen = parser.parse_args()
    outcomes = [run(chosen.recipes[0], seed, chosen.root / f"seed-{seed}", chosen.sets) for seed in chosen.seeds]
    loop = next(o for o in outcomes if o.seed == chosen.ablation_seed)
    root = chosen.root / f"seed-{chosen.ablation_seed}"
    others = [run(recipe, chosen.ablation_seed, root, chosen.sets) for recipe in chosen.recipes[1:]]
    n = len(loop.capability)
    what = f"Accuracy in % on {n:,} held-out prompts; changes in points with paired 95% intervals."
    lines = [f"{what} {os.cpu_count()} cores, {platform.machine()}.", "", *seeds_table(outcomes), ""]
    lines += ablations_table([loop, *others], loop)
    print("\n".join(lines))
    if chosen.write:
        text = RESULTS.read_text(encoding="utf-8")
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        RESULTS.write_text(f"{before}{MARKS[0]}\n" + "\n".join(lines) + f"\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
