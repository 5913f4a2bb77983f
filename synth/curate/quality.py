"""Quality by the reward model's top share or the judge's highest rating, or both (Llama 3, 4.2.3)."""

import math
from bisect import bisect_right
from collections import Counter
from typing import Any

from posttrain.data.rows import Row
from posttrain.stages import Job
from synth.curate.ask import ask, questioned, rating
from synth.curate.quality_spec import QualityConfig
from synth.curate.table import Drop, items, labelled, sift

GENERAL_POINTS, CODE_POINTS = 3, 2


def run(job: Job) -> None:
    """Write the labelled `rows`, those that are not good to `rejects`; the summary says who found how many good."""
    config: QualityConfig = job.config
    rewards = _rewards(job) if config.reward_share is not None else {}
    points: dict[str, int | None] = {}
    if config.judge:
        points = ask(
            job, "judge", items(job), lambda row: questioned(_question(row, config), row, whole=True),
            lambda text, row: rating(text, points_of(row, config)),
        )  # fmt: skip
    good_by: Counter[str] = Counter()

    def decide(row: Row) -> Any:
        verdicts, quality = judge(row, rewards.get(row.capability, []), points.get(row.id), config)
        good_by["+".join(name for name, good in verdicts.items() if good) or "none"] += 1
        told = {} if quality is None else {"quality": round(quality, 4)}
        if config.keep != "all" and not verdicts:
            return Drop("no score")
        if config.keep != "all" and not (any if config.keep == "either" else all)(verdicts.values()):
            return Drop("low quality", detail={"good_by": verdicts, "reward": row.reward, **told})
        return labelled(row, **told)

    sift(job, decide)
    job.summary["good_by"] = dict(sorted(good_by.items()))


def _rewards(job: Job) -> dict[str, list[float]]:
    """The rewards of each capability's rows, rising."""
    found: dict[str, list[float]] = {}
    for row in items(job):
        if row.reward is not None:
            found.setdefault(row.capability, []).append(row.reward)
    return {capability: sorted(values) for capability, values in found.items()}


def judge(
    row: Row, rewards: list[float], points: int | None, config: QualityConfig
) -> tuple[dict[str, bool], float | None]:
    """Whether the row is good by each that could tell, and its quality from 0 to 1 (None where neither could).

    `rewards` are those of its capability, rising; `points` the judge's.
    """
    verdicts: dict[str, bool] = {}
    qualities: list[float] = []
    if config.reward_share is not None and row.reward is not None:
        last_good = rewards[len(rewards) - math.ceil(config.reward_share * len(rewards))]
        verdicts["reward"] = row.reward >= last_good
        qualities.append(bisect_right(rewards, row.reward) / len(rewards))
    if points is not None:
        verdicts["judge"] = points == points_of(row, config)
        qualities.append(points / points_of(row, config))
    return verdicts, max(qualities, default=None)


def points_of(row: Row, config: QualityConfig) -> int:
    """The highest rating of the row's scale."""
    return CODE_POINTS if row.capability in config.code else GENERAL_POINTS


def _question(row: Row, config: QualityConfig) -> str:
    return "quality_code" if row.capability in config.code else "quality_general"
