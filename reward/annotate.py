"""Preference pairs from the verifier: on a share of the prompts, right answers against wrong ones.

Stands where the paper has human annotators (Llama 3, 4.2.1); the reward model learns from these pairs.
"""

import random
from collections import Counter
from itertools import product
from pathlib import Path

from posttrain.data.rows import Candidates, Pair, Response, gather
from posttrain.data.tables import read_table, write_table
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.annotate_spec import AnnotateConfig
from reward.answers import RIGHT, answer_key, grade_of, message_of, share_of


def run(job: Job) -> None:
    """Write `preferences`; `job.summary["drops"]` counts the share's prompts without a pair, by reason."""
    config: AnnotateConfig = job.config
    prompts = read_table(Path(job.inputs["prompts"]), "prompts")
    pool = gather(prompts, read_table(Path(job.inputs["responses"]), "responses"))
    chosen = [item for item in pool if share_of("annotate", item.prompt.id) < config.share]
    pairs: list[Pair] = []
    drops: Counter[str] = Counter()
    for item in chosen:
        found, reason = _pairs(item, config.pairs_per_prompt, job.rng(item.prompt.id))
        pairs += [_pair(job, item, *two) for two in found]
        if reason:
            drops[reason] += 1
    if not pairs:
        raise UserError(
            f"annotation made no pair from {len(chosen):,} of {len(pool):,} prompts ({_told(drops)}); "
            "raise share or k, or use prompts that are answered rightly at times"
        )
    job.rows["preferences"] = write_table(job.folder, "preferences", pairs)
    paired = len({pair.prompt_id for pair in pairs})
    job.summary["prompts"] = {"pool": len(pool), "share": len(chosen), "with_pairs": paired}
    job.summary["pairs_by_capability"] = dict(sorted(Counter(pair.capability for pair in pairs).items()))
    job.summary["drops"] = dict(drops)
    job.progress(len(chosen), len(chosen), "prompts")


def _pairs(item: Candidates, most: int, rng: random.Random) -> tuple[list[tuple[Response, Response]], str]:
    """Up to `most` (right, wrong) answers of different messages, or none and the reason."""
    if item.prompt.check is None:
        return [], "no_check"
    right: dict[str, Response] = {}
    wrong: dict[str, Response] = {}
    for response in item.responses:
        value = grade_of(item.prompt, response)
        if value is not None:
            (right if value == RIGHT else wrong).setdefault(answer_key(response), response)
    if not right or not wrong:
        return [], "all_right" if right else "all_wrong" if wrong else "ungradable"
    found = list(product(right.values(), wrong.values()))
    return (found if len(found) <= most else rng.sample(found, most)), ""


def _pair(job: Job, item: Candidates, better: Response, worse: Response) -> Pair:
    prompt = item.prompt
    return Pair(
        prompt=prompt.messages, chosen=message_of(better), rejected=message_of(worse), capability=prompt.capability,
        language=prompt.language, source=prompt.source, tools=prompt.tools, prompt_id=prompt.id,
        parents=(prompt.id, better.id, worse.id), made_by={"stage": job.name, "round": job.round, "by": job.config.by},
    )  # fmt: skip


def _told(drops: Counter[str]) -> str:
    told = [f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(drops.items())]
    return ", ".join(told) or "no prompt fell into the share"
