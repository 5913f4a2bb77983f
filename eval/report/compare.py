"""`posttrain compare A B`: two runs, or two checkpoints, on the held-out prompts that both answered."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.report.charts import Dot, dots
from eval.report.costs import costs, together, versions
from eval.report.evaluations import Evaluation, evaluation_at
from eval.report.page import points, short, write_page
from eval.report.paired import MEANING, OVERALL, Line, common_prompts, two_columns
from eval.report.run import step
from eval.report.text import print_comparison
from eval.statistics import needed_n
from posttrain.errors import UserError

PAGE = Path("compare.html")
TWO_POINTS = 0.02
"""A difference of accuracy that one would like to find."""
Content = dict[str, Any]


def compare(a: Path, b: Path, out: Path | None = None, console: Console | None = None) -> Path:
    """Write the page, by default `compare.html` here, and print the same essentials where a console is given.

    Raises UserError where a path is no run and no checkpoint of one, was not evaluated, or has no prompt in common
    with the other.
    """
    path = out or PAGE
    content = gather(a, b)
    write_page(path, "compare.html.jinja", content)
    if console is not None:
        print_comparison(content, path, console)
    return path


def gather(a: Path, b: Path) -> Content:
    """All that the page and the terminal tell."""
    before, after = evaluation_at(a), evaluation_at(b)
    prompts = common_prompts(before, after)
    if not prompts:
        raise UserError(
            f"{a} and {b} have no held-out prompt in common that both graded by the same check "
            f"({len(before.grades):,} and {len(after.grades):,} graded); evaluate them on the same prompts"
        )
    lines = [
        *two_columns(before, after, prompts, None),
        *two_columns(before, after, prompts, lambda prompt: prompt.capability),
    ]
    languages = two_columns(before, after, prompts, lambda prompt: prompt.language)
    sides = [_side(path, column) for path, column in ((a, before), (b, after))]
    return {
        "sides": sides,
        "one_run": before.run.root.resolve() == after.run.root.resolve(),
        "prompts": len(prompts),
        "alone": [len(column.grades) - len(prompts) for column in (before, after)],
        "differing": sum(before.grades[prompt.id] != after.grades[prompt.id] for prompt in prompts),
        "lines": lines,
        "languages": languages if len(languages) > 1 else [],
        "chart": _chart(lines),
        "needed": _needed(lines[0], before, after, [prompt.id for prompt in prompts]),
        "steps": [step(before, after)],
        "meaning": MEANING,
        "settings": list(differences(_settings(before), _settings(after))),
    }


def _side(path: Path, column: Evaluation) -> Content:
    return {
        "path": str(path), "name": column.run.plan["name"], "title": column.title, "id": column.id,
        "total": together("all stages", costs(column.run)), "versions": dict(versions(column.run)),
        "done": len(column.run.stages), "stages": len(column.run.plan["stages"]),
    }  # fmt: skip


def _chart(lines: list[Line]) -> Any:
    """The changes in points, A to B."""
    rows = []
    for line in lines:
        cell = line.cells[1]
        assert cell is not None and cell.change is not None
        change = cell.change
        value, low, high = (100 * change[name] for name in ("change", "low", "high"))
        rows.append((line.name, [Dot(1, value, low, high, f"{points(change['change'])} (n={change['n']:,})")]))
    return dots("change from A to B in points, with paired 95% intervals", rows, [], "points", zero=True)


def _needed(overall: Line, before: Evaluation, after: Evaluation, ids: list[str]) -> Content | None:
    """Where nothing is shown: how many prompts would find two points, as often as these two differ."""
    cell = overall.cells[1]
    assert overall.name == OVERALL and cell is not None
    differing = sum(abs(before.grades[id] - after.grades[id]) for id in ids) / len(ids)
    if cell.mark or differing < TWO_POINTS:
        return None
    return {"n": needed_n(TWO_POINTS, differing), "points": 100 * TWO_POINTS}


def _settings(column: Evaluation) -> dict[str, Any]:
    """Everything the plan asked for, by stage and name, flat; models from outside by their fingerprint."""
    found: dict[str, Any] = {}
    for entry in column.run.plan["stages"]:
        found |= dict(_flat(entry["config"], entry["id"]))
        found[f"{entry['id']}: stage"] = entry["stage"]
    for stage in column.run.stages:
        for name, value in stage.manifest.parents.items():
            for item in value if isinstance(value, list) else [value]:
                if "source" in item:
                    found[f"{stage.id}: {name}"] = f"{short(item['source'])} ({item['fingerprint']})"
    return found


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", inner


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, A's value and B's, of all that differ; `–` where one has none."""
    for name in dict.fromkeys([*a, *b]):
        if a.get(name, ...) != b.get(name, ...):
            yield name, _written(a, name), _written(b, name)


def _written(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "–"
