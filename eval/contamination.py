"""Which evaluation prompts the training data repeats: `contamination.json` with the text they share."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.contamination_spec import ContaminationConfig
from posttrain.artifacts import write_durably
from posttrain.data.overlap import Index, repeated
from posttrain.data.tables import iter_table, pair_table
from posttrain.stages import Job

FILE = "contamination.json"


def run(job: Job) -> None:
    config: ContaminationConfig = job.config
    index, capability = Index(config.ngram), dict[str, str]()
    for folder in job.inputs["prompts"]:
        for prompt in iter_table(Path(folder), "prompts"):
            capability[prompt.id] = prompt.capability
            index.add(prompt)
    found: dict[str, Any] = {}
    rows = 0
    for folder in map(Path, job.inputs["trained"]):
        table = "rows" if (folder / "rows.parquet").is_file() else pair_table(folder)
        for row in iter_table(folder, table):
            rows += 1
            match = repeated(row, index, config.overlap)
            if match is not None:
                found.setdefault(match.prompt_id, {**asdict(match), "row": row.id})
    counts = Counter(capability[prompt_id] for prompt_id in found)
    totals = Counter(capability.values())
    by_suite = {name: {"prompts": total, "contaminated": counts[name]} for name, total in sorted(totals.items())}
    report = {"rows": rows, "suites": by_suite, "prompts": dict(sorted(found.items()))}
    write_durably(job.folder / FILE, json.dumps(report, indent=1, ensure_ascii=False))
    job.rows["contaminated"] = len(found)
    job.summary.update({"rows": rows, "suites": by_suite})
