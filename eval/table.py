"""Graded answers: summed up in groups, and compared pair by pair with those of another evaluation."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from posttrain.checks.intervals import paired_difference, wilson
from posttrain.data.rows import Prompt, Response
from posttrain.data.tables import iter_table

T = TypeVar("T")
SCORER = "verifier"
REPORT = "report.json"
Grades = Mapping[str, float]
"""Prompt id → grade, for the answers that could be graded."""
GROUPS: dict[str, Callable[[Prompt], str | None]] = {
    "capability": lambda prompt: prompt.capability,
    "language": lambda prompt: prompt.language,
    "level": lambda prompt: str(prompt.made_by["level"]) if "level" in prompt.made_by else None,
}
"""The ways the overall numbers are split; a prompt without the feature stands in no group of it."""


@dataclass(frozen=True)
class Graded:
    """One prompt, its answer, and the answer's grade (None where it cannot be graded)."""

    prompt: Prompt
    response: Response
    value: float | None


def read_grades(folder: Path) -> dict[str, float]:
    """The grades of a finished evaluation, by prompt id."""
    prompt_of = {response.id: response.prompt_id for response in iter_table(folder, "responses")}
    return {prompt_of[s.response_id]: s.value for s in iter_table(folder, "scores") if s.scorer == SCORER}


def results(graded: Iterable[Graded]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, overall and by each of GROUPS, and what the answers look like."""
    answers = list(graded)
    report: dict[str, Any] = {"overall": _sum_up(answers)}
    for name, group_of in GROUPS.items():
        split = _split(answers, [group_of(answer.prompt) for answer in answers])
        report[name] = {group: _sum_up(members) for group, members in split.items()}
    return report


def changes(prompts: Iterable[Prompt], before: Grades, after: Grades) -> dict[str, Any]:
    """The paired change over the prompts that have both grades: `overall`, and by `capability`."""
    paired = [prompt for prompt in prompts if prompt.id in before and prompt.id in after]
    split = _split(paired, [prompt.capability for prompt in paired])
    return {
        "overall": _change(paired, before, after),
        "capability": {name: _change(members, before, after) for name, members in split.items()},
    }


def _change(prompts: list[Prompt], before: Grades, after: Grades) -> dict[str, Any]:
    return asdict(paired_difference([before[p.id] for p in prompts], [after[p.id] for p in prompts]))


def _sum_up(answers: list[Graded]) -> dict[str, Any]:
    values = [answer.value for answer in answers if answer.value is not None]
    return {
        **asdict(wilson(sum(values), len(values))),
        "unreadable": len(answers) - len(values),
        "mean_tokens": sum(answer.response.tokens for answer in answers) / max(1, len(answers)),
        "finish": dict(sorted(Counter(answer.response.finish for answer in answers).items())),
    }


def _split(items: Iterable[T], names: Iterable[str | None]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item, name in zip(items, names, strict=True):
        if name is not None:
            groups.setdefault(name, []).append(item)
    return dict(sorted(groups.items()))
