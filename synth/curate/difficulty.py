"""How hard what each row asks is: a judge's points on a three-point scale, the number of intention tags (P 4.2.3)."""

from collections import Counter
from typing import Any

from posttrain.data.rows import Row
from posttrain.stages import Job
from synth.curate.ask import ask, questioned, rating, tags
from synth.curate.difficulty_spec import DifficultyConfig
from synth.curate.table import Drop, items, labelled, sift

POINTS = 3


def run(job: Job) -> None:
    """Write the labelled `rows`, those below the least difficulty to `rejects`; the summary counts difficulties."""
    config: DifficultyConfig = job.config
    points: dict[str, int | None] = {}
    tagged: dict[str, list[str] | None] = {}
    if config.judge:
        points = ask(job, "judge", items(job), _judge_question, lambda text, row: rating(text, POINTS))
    if config.tagger:
        tagged = ask(job, "tagger", items(job), _tags_question, lambda text, row: tags(text))
    counts: Counter[str] = Counter()

    def decide(row: Row) -> Any:
        labels = _labels(points.get(row.id), tagged.get(row.id))
        difficulty = labels.get("difficulty")
        counts[str(difficulty)] += 1
        if difficulty is not None and difficulty < config.least:
            return Drop("too easy", detail=labels)
        return labelled(row, **labels)

    sift(job, decide)
    job.summary["difficulties"] = dict(sorted(counts.items()))


def _labels(points: int | None, found: list[str] | None) -> dict[str, Any]:
    labels: dict[str, Any] = {"tags": found} if found else {}
    difficulty = points if points is not None else len(found) if found else None
    return labels | ({"difficulty": difficulty} if difficulty is not None else {})


def _judge_question(row: Row) -> str:
    return questioned("difficulty", row, whole=True)


def _tags_question(row: Row) -> str:
    return questioned("tags", row, whole=False)
