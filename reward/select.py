"""From scored candidates to what is trained: one answer a prompt for SFT, and ranked pairs for DPO (Llama 3, 4.2.2)."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from posttrain.data.rows import Candidates, Pair, Response, Row, gather
from posttrain.data.tables import read_table, write_table
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.answers import RIGHT, answer_key, grade_of, message_of
from reward.scorers import COMBINED, REWARD
from reward.select_spec import PairRule, RowRule, SelectConfig

Drops = Counter[str]


def run(job: Job) -> None:
    """Write `rows` and `pairs`; `job.summary["drops"]` counts the prompts that gave none, by table and reason."""
    config: SelectConfig = job.config
    pool, unscored = _candidates(job)
    drops: dict[str, dict[str, int]] = {"prompts": {"not_scored": unscored}}
    if config.sft is not None:
        rows, lost = select_rows(job, pool, config.sft)
        _write(job, "rows", rows, lost, drops)
    if config.pairs is not None:
        pairs, lost = select_pairs(job, pool, config.pairs)
        _write(job, "pairs", pairs, lost, drops)
    job.summary["drops"] = drops
    job.progress(len(pool), len(pool), "prompts")


def _candidates(job: Job) -> tuple[list[Candidates], int]:
    """The candidates, where there are scores only those that have them (annotated ones do not); how many lack them."""
    scores = read_table(Path(job.inputs["scores"]), "scores") if "scores" in job.inputs else []
    prompts = read_table(Path(job.inputs["prompts"]), "prompts")
    pool = gather(prompts, read_table(Path(job.inputs["responses"]), "responses"), scores)
    if "scores" not in job.inputs:
        return pool, 0
    scored = [item for item in pool if None not in item.scores.get(COMBINED, (None,))]
    return scored, len(pool) - len(scored)


def _write(job: Job, table: str, made: list[Any], lost: Drops, drops: dict[str, dict[str, int]]) -> None:
    if not made:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(lost.items()))
        raise UserError(f"selection made no {table} ({reasons or 'no prompts'}); add prompts or loosen its rules")
    job.rows[table] = write_table(job.folder, table, made)
    job.summary[f"{table}_by_capability"] = dict(sorted(Counter(item.capability for item in made).items()))
    drops[table] = dict(sorted(lost.items()))


def select_rows(job: Job, pool: list[Candidates], rule: RowRule) -> tuple[list[Row], Drops]:
    """One row a prompt by the rule, then the top share of each capability; and the lost prompts by reason."""
    chosen: list[tuple[Candidates, int]] = []
    lost: Drops = Counter()
    for item in pool:
        places = _whole(item)
        right = [place for place in places if grade_of(item.prompt, item.responses[place]) == RIGHT]
        if not places:
            lost["all_cut"] += 1
        elif rule.rule == "best":
            chosen.append((item, _best(item, places)))
        elif rule.rule == "verified" and not right:
            lost["none_verified"] += 1
        else:
            drawn = job.rng("row", item.prompt.id).choice(right if rule.rule == "verified" else places)
            chosen.append((item, drawn))
    kept = _top(chosen, rule)
    if len(kept) < len(chosen):
        lost["below_top_share"] = len(chosen) - len(kept)
    return [_row(job, item, place, rule) for item, place in kept], lost


def _reward(item: Candidates, place: int) -> float | None:
    return item.scores[REWARD][place] if REWARD in item.scores else None


def _whole(item: Candidates) -> list[int]:
    """Places of the answers that ended themselves and say something."""
    return [i for i, response in enumerate(item.responses) if response.finish == "stop" and response.text.strip()]


def _best(item: Candidates, places: list[int]) -> int:
    """The place of the highest combined score, the first of equals."""
    return max(places, key=lambda place: (_combined(item, place), -place))


def _combined(item: Candidates, place: int) -> float:
    value = item.scores[COMBINED][place]
    assert value is not None, "_candidates leaves out prompts without combined scores"
    return value


def _top(chosen: list[tuple[Candidates, int]], rule: RowRule) -> list[tuple[Candidates, int]]:
    """The best `top_share` of each capability's prompts (rounded up), in the order they came."""
    if rule.top_share == 1:
        return chosen
    of_capability: dict[str, list[tuple[Candidates, int]]] = {}
    for two in chosen:
        of_capability.setdefault(two[0].prompt.capability, []).append(two)
    kept: set[str] = set()
    for group in of_capability.values():
        group.sort(key=lambda two: (-_merit(two[0], two[1], rule), two[0].prompt.id))
        kept |= {item.prompt.id for item, _ in group[: math.ceil(rule.top_share * len(group))]}
    return [two for two in chosen if two[0].prompt.id in kept]


def _merit(item: Candidates, place: int, rule: RowRule) -> float:
    """How good a prompt's best answer is: its reward, or how far its candidates lie apart in combined score."""
    if rule.top_by == "margin":
        values = [_combined(item, i) for i in range(len(item.responses))]
        return max(values) - min(values)
    reward = _reward(item, place)
    if reward is None:
        raise UserError("select.sft.top_by is reward but no reward model scored the answers; set top_by: margin")
    return reward


def select_pairs(job: Job, pool: list[Candidates], rule: PairRule) -> tuple[list[Pair], Drops]:
    """The best against the worst answer of each prompt; and the lost prompts by reason."""
    pairs: list[Pair] = []
    lost: Drops = Counter()
    for item in pool:
        places = _whole(item)
        if not places:
            lost["all_cut"] += 1
            continue
        best = _best(item, places)
        worst = min(places, key=lambda place: (_combined(item, place), place))
        margin = _combined(item, best) - _combined(item, worst)
        if answer_key(item.responses[best]) == answer_key(item.responses[worst]):
            lost["equal_answers"] += 1
        elif margin < rule.min_margin or margin == 0:
            lost["below_margin"] += 1
        else:
            pairs.append(_pair(job, item, best, worst, margin, rule))
    return pairs, lost


def _made_by(job: Job, rule: RowRule | PairRule, *responses: Response) -> dict[str, Any]:
    return {"stage": job.name, "round": job.round, "rule": rule.rule, "model": responses[0].made_by.get("model")}


def _row(job: Job, item: Candidates, place: int, rule: RowRule) -> Row:
    prompt, response = item.prompt, item.responses[place]
    return Row(
        messages=(*prompt.messages, message_of(response)), capability=prompt.capability, language=prompt.language,
        source=prompt.source, tools=prompt.tools, reward=_reward(item, place),
        parents=(prompt.id, response.id), made_by=_made_by(job, rule, response),
    )  # fmt: skip


def _pair(job: Job, item: Candidates, best: int, worst: int, margin: float, rule: PairRule) -> Pair:
    prompt, better, worse = item.prompt, item.responses[best], item.responses[worst]
    return Pair(
        prompt=prompt.messages, chosen=message_of(better), rejected=message_of(worse), capability=prompt.capability,
        language=prompt.language, source=prompt.source, tools=prompt.tools, margin=margin, prompt_id=prompt.id,
        parents=(prompt.id, better.id, worse.id), made_by=_made_by(job, rule, better),
    )  # fmt: skip
