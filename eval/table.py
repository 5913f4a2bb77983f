"""Graded answers: summed up in groups, and compared pair by pair with those of another evaluation."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eval.statistics import holm, llama_half_width, paired_change, paired_p, rate
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
"""The ways the overall numbers are split; a prompt without the feature stands in no group of it. A suite's prompts have
its name as their capability."""


@dataclass(frozen=True)
class Graded:
    """One prompt, one answer, and the answer's grade (None where it cannot be graded) with what was read of it."""

    prompt: Prompt
    response: Response
    value: float | None = None
    reason: str = ""
    parsed: str | None = ""
    parts: dict[str, float] = field(default_factory=dict)


def read_grades(folder: Path) -> dict[str, float]:
    """The grades of a finished evaluation by prompt id, several answers to one prompt as their mean."""
    prompt_of = {response.id: response.prompt_id for response in iter_table(folder, "responses")}
    values: dict[str, list[float]] = {}
    for score in iter_table(folder, "scores"):
        if score.scorer == SCORER:
            values.setdefault(prompt_of[score.response_id], []).append(score.value)
    return {prompt_id: sum(own) / len(own) for prompt_id, own in values.items()}


def results(graded: Iterable[Graded]) -> dict[str, Any]:
    """Accuracy with its interval, overall and by each of GROUPS, and what the answers look like."""
    answers = list(graded)
    report: dict[str, Any] = {"overall": sum_up(answers)}
    for name, group_of in GROUPS.items():
        split = split_by(answers, [group_of(answer.prompt) for answer in answers])
        report[name] = {group: sum_up(members) for group, members in split.items()}
    return report


def changes(prompts: Iterable[Prompt], before: Grades, after: Grades) -> dict[str, Any]:
    """The paired change over the prompts that have both grades: `overall`, and by `capability`, each with its p and, of
    the capabilities, with `p_holm`, which holds when all of them are looked at."""
    paired = [prompt for prompt in prompts if prompt.id in before and prompt.id in after]
    split = split_by(paired, [prompt.capability for prompt in paired])
    by_capability = {name: _change(members, before, after) for name, members in split.items()}
    for name, p in holm({name: found["p"] for name, found in by_capability.items()}).items():
        by_capability[name]["p_holm"] = p
    return {"overall": _change(paired, before, after), "capability": by_capability}


def _change(prompts: list[Prompt], before: Grades, after: Grades) -> dict[str, Any]:
    old, new = [before[prompt.id] for prompt in prompts], [after[prompt.id] for prompt in prompts]
    clusters = clusters_of(prompts)
    return {**asdict(paired_change(old, new, clusters)), "p": paired_p(old, new, clusters)}


def clusters_of(prompts: Sequence[Prompt]) -> list[str] | None:
    """The source of each prompt, where any says that it shares one."""
    if not any("cluster" in prompt.made_by for prompt in prompts):
        return None
    return [f"{prompt.capability} {prompt.made_by.get('cluster', prompt.id)}" for prompt in prompts]


def sum_up(answers: Sequence[Graded]) -> dict[str, Any]:
    """The mean grade with its interval; several answers to one prompt count as one, with their mean."""
    by_prompt: dict[str, list[Graded]] = {}
    for answer in answers:
        if answer.value is not None:
            by_prompt.setdefault(answer.prompt.id, []).append(answer)
    values = [sum(a.value or 0.0 for a in own) / len(own) for own in by_prompt.values()]
    found = rate(values, clusters_of([own[0].prompt for own in by_prompt.values()]))
    return {
        **asdict(found),
        "llama_half_width": llama_half_width(found.accuracy, found.n),
        "unreadable": sum(answer.value is None or answer.parsed is None for answer in answers),
        "mean_tokens": sum(answer.response.tokens for answer in answers) / max(1, len(answers)),
        "finish": dict(sorted(Counter(answer.response.finish for answer in answers).items())),
    }


def split_by(items: Iterable[T], names: Iterable[str | None]) -> dict[str, list[T]]:
    """The items by name, names in order; those named None stand nowhere."""
    groups: dict[str, list[T]] = {}
    for item, name in zip(items, names, strict=True):
        if name is not None:
            groups.setdefault(name, []).append(item)
    return dict(sorted(groups.items()))
