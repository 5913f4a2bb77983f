"""What each row is about, as a model says; Llama 3 uses a topic classifier for coarse and fine buckets (P 4.2.3)."""

from collections import Counter
from typing import Any

from posttrain.data.rows import Row
from posttrain.stages import Job
from synth.curate.ask import ask, questioned, topic
from synth.curate.table import Drop, items, labelled, sift
from synth.curate.topics_spec import TopicsConfig

NONE = "no topic"


def run(job: Job) -> None:
    """Write the labelled `rows`, those of unwanted topics to `rejects`; the summary counts topics."""
    config: TopicsConfig = job.config

    def question(row: Row) -> str:
        return questioned("topic", row, whole=False, topics=config.topics)

    found = ask(job, "model", items(job), question, lambda text, row: topic(text, config.topics))
    unwanted = {one.lower() for one in config.drop}

    def decide(row: Row) -> Any:
        named = found[row.id]
        if named is None:
            return row
        return Drop("topic", detail={"topic": named}) if named.lower() in unwanted else labelled(row, topic=named)

    sift(job, decide)
    job.summary["topics"] = dict(Counter(name or NONE for name in found.values()).most_common())
