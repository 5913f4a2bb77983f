"""Rows that repeat an evaluation prompt are left out, with the prompt's id and the text they share."""

from collections import Counter
from pathlib import Path
from typing import Any

from posttrain.data.overlap import Index, repeated
from posttrain.data.rows import Pair, Prompt, Row
from posttrain.data.tables import iter_table
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.curate.decontaminate_spec import DecontaminateConfig
from synth.curate.table import Drop, sift


def run(job: Job) -> None:
    """Write the table without what is contaminated, and `rejects` with the text found; count the prompts found."""
    config: DecontaminateConfig = job.config
    index, capability = Index(config.ngram), dict[str, str]()
    for folder in job.inputs["eval_prompts"]:
        for prompt in iter_table(Path(folder), "prompts"):
            if prompt.id not in capability:
                capability[prompt.id] = prompt.capability
                index.add(prompt)
    if not capability:
        raise UserError(f"{job.name}: the evaluation prompts are empty, so nothing can be compared with them")
    hit: Counter[str] = Counter()

    def decide(item: Any) -> Any:
        drop = contamination(item, index, config.overlap)
        if drop is not None:
            hit[drop.detail["eval_prompt"]] += 1
        return drop or item

    sift(job, decide, config.over)
    job.summary["eval_prompts"] = {"compared": len(capability), "found": len(hit)}
    found = Counter(capability[prompt_id] for prompt_id in hit)
    job.summary["eval_prompts_found_by_capability"] = dict(sorted(found.items()))


def contamination(item: Row | Prompt | Pair, index: Index, overlap: float | None) -> Drop | None:
    """The evaluation prompt that a row, prompt or pair repeats, exactly or in its word runs, or None."""
    match = repeated(item, index, overlap)
    if match is None:
        return None
    if match.share is None:
        return Drop("equals an eval prompt", match.text, {"eval_prompt": match.prompt_id})
    detail = {"eval_prompt": match.prompt_id, "overlap": round(match.share, 4)}
    return Drop("overlaps an eval prompt", match.text, detail)
