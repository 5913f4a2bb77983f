"""From scored candidates to what is trained: answers for SFT, and ranked pairs for DPO (Llama 3, 4.2.2).

Reads what sampling and scoring wrote and runs no model, so another K', rule or reward model samples nothing anew.
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.rows import EDITED, Candidates, Pair, Reject, Response, Row, gather
from posttrain.data.tables import iter_table, read_table, write_table
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.answers import message_of, messages_of
from reward.contest import Contest, open_contest
from reward.rules import PAIR_RULES, ROW_RULES
from reward.scorers import COMBINED
from reward.select_spec import PairRule, RowRule, SelectConfig

SHOWN = 80
"""Characters of a losing answer that `rejects` keeps; the whole of it stands in the responses."""

Drops = Counter[str]
Losers = list[Reject]


def run(job: Job) -> None:
    """Write `rows`, `pairs` and `rejects`, the candidates that lost with the reason.

    `job.summary["drops"]` counts the prompts that gave none, by table and reason, and `job.summary["candidates"]` the
    samples that lost.
    """
    config: SelectConfig = job.config
    pool, unscored = _candidates(job)
    drops: dict[str, dict[str, int]] = {"prompts": {"not_scored": unscored}}
    losers: Losers = []
    if config.row_rules():
        rows, lost, beaten = select_rows(job, pool)
        _write(job, "rows", rows, lost, drops)
        losers += beaten
    if config.pair_rules():
        pairs, lost, beaten = select_pairs(job, pool)
        _write(job, "pairs", pairs, lost, drops)
        losers += beaten
    job.rows["rejects"] = write_table(job.folder, "rejects", losers)
    job.summary["drops"] = drops
    counts: Counter[tuple[str, str]] = Counter()
    for loser in losers:
        counts[loser.detail["for"], loser.reason] += loser.detail["count"]
    job.summary["candidates"] = {f"{table}: {reason}": count for (table, reason), count in sorted(counts.items())}
    job.progress(len(pool), len(pool), "prompts")


def _candidates(job: Job) -> tuple[list[Candidates], int]:
    """The candidates, where there are scores only those that have them (annotated ones do not); how many lack them."""
    scores = read_table(Path(job.inputs["scores"]), "scores") if "scores" in job.inputs else []
    prompts = read_table(Path(job.inputs["prompts"]), "prompts")
    pool = gather(prompts, read_table(Path(job.inputs["responses"]), "responses"), scores)
    if "scores" not in job.inputs:
        return pool, 0
    scored = [item for item in pool if any(value is not None for v in item.scores.values() for value in v)]
    return scored, len(pool) - len(scored)


def _write(job: Job, table: str, made: list[Any], lost: Drops, drops: dict[str, dict[str, int]]) -> None:
    if not made:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(lost.items()))
        raise UserError(f"selection made no {table} ({reasons or 'no prompts'}); add prompts or loosen its rules")
    job.rows[table] = write_table(job.folder, table, made)
    job.summary[f"{table}_by_capability"] = dict(sorted(Counter(item.capability for item in made).items()))
    drops[table] = dict(sorted(lost.items()))


def select_rows(job: Job, pool: list[Candidates]) -> tuple[list[Row], Drops, Losers]:
    """The rows by each capability's rule, of the top share of its prompts; lost prompts by reason; losing answers."""
    lost: Drops = Counter()
    losers: Losers = []
    won: list[tuple[Contest, list[int], RowRule]] = []
    for item in pool:
        rule = job.config.row_rule(item.prompt.capability)
        if rule is None:
            lost["off_for_capability"] += 1
            continue
        contest = open_contest(item, job.config, job.rng)
        contest.lost |= contest.guarded
        chosen, reason = ROW_RULES[rule.rule](contest, rule) if contest.choosable else ([], _nobody(contest))
        if chosen:
            won.append((contest, chosen, rule))
        else:
            lost[reason] += 1
            losers += _beaten(contest, "rows", rule.score, [])
    kept = _top(won)
    for contest, chosen, rule in won:
        if contest.item.prompt.id not in kept:
            lost["below_top_share"] += 1
            contest.lost |= dict.fromkeys(chosen, "below_top_share")
        losers += _beaten(contest, "rows", rule.score, chosen)
    rows = [
        _row(job, contest, place, rule)
        for contest, chosen, rule in won
        if contest.item.prompt.id in kept
        for place in chosen
    ]
    return rows, lost, losers


def _nobody(contest: Contest) -> str:
    """Why no answer of a prompt may be chosen."""
    reasons = set(contest.lost.values()) - {"beyond_k"}
    if reasons <= {"cut", "empty"}:
        return "all_cut"
    return reasons.pop() if len(reasons) == 1 else "none_eligible"


def _top(won: list[tuple[Contest, list[int], RowRule]]) -> set[str]:
    """Prompt ids of the best `top_share` of each capability's prompts, rounded up."""
    of_capability: dict[str, list[tuple[Contest, list[int], RowRule]]] = {}
    for entry in won:
        of_capability.setdefault(entry[0].item.prompt.capability, []).append(entry)
    kept: set[str] = set()
    for group in of_capability.values():
        share = group[0][2].top_share
        if share < 1:
            group.sort(key=lambda entry: (-_merit(entry[0], entry[1][0], entry[2]), entry[0].item.prompt.id))
            group = group[: math.ceil(share * len(group))]
        kept |= {contest.item.prompt.id for contest, _, _ in group}
    return kept


def _merit(contest: Contest, place: int, rule: RowRule) -> float:
    """How good a prompt's chosen answer is: its reward, or how far its candidates lie apart in combined score."""
    if rule.top_by == "margin":
        values = [contest.score(COMBINED, i) for i in range(len(contest.item.responses))]
        scored = [value for value in values if value is not None]
        return max(scored) - min(scored) if scored else 0.0
    reward = contest.reward(place)
    if reward is None:
        raise UserError("select.sft.top_by is reward but no reward model scored the answers; set top_by: margin")
    return reward


def select_pairs(job: Job, pool: list[Candidates]) -> tuple[list[Pair], Drops, Losers]:
    """The pairs by each capability's rule; lost prompts by reason; answers that are in no pair."""
    pairs = list(_edited(job))
    lost: Drops = Counter()
    losers: Losers = []
    for item in pool:
        rule = job.config.pair_rule(item.prompt.capability)
        if rule is None or rule.rule == "edited":
            lost["off_for_capability" if rule is None else "not_edited"] += 1
            continue
        contest = open_contest(item, job.config, job.rng)
        made, reason = PAIR_RULES[rule.rule](contest, rule) if contest.places else ([], _nobody(contest))
        pairs += [_pair(job, contest, better, worse, rule) for better, worse in made]
        if not made:
            lost[reason] += 1
        used = [place for two in made for place in two]
        contest.lost |= dict.fromkeys(set(contest.places) - set(used) - contest.lost.keys(), reason or "between")
        losers += _beaten(contest, "pairs", rule.score, used)
    return pairs, lost, losers


def _edited(job: Job) -> Iterator[Pair]:
    """The round's annotated pairs whose better answer a person wrote, for the capabilities whose rule asks for them."""
    if "preferences" not in job.inputs:
        return
    for pair in iter_table(Path(job.inputs["preferences"]), "preferences"):
        rule = job.config.pair_rule(pair.capability)
        if rule is not None and rule.rule == "edited" and pair.rating == EDITED:
            yield pair


def _beaten(contest: Contest, table: str, scorer: str, chosen: list[int]) -> Losers:
    """A reject for each place that lost: its score, and who won instead."""
    winners = [contest.item.responses[place].id for place in chosen if place not in contest.lost]
    values = contest.item.scores.get(scorer)
    found = []
    for place, reason in sorted(contest.lost.items()):
        response = contest.item.responses[place]
        detail = {
            "for": table, "prompt_id": contest.item.prompt.id, scorer: values[place] if values else None,
            "chosen": list(dict.fromkeys(winners)), "count": response.count,
        }  # fmt: skip
        found.append(Reject(response.id, reason, response.text[:SHOWN], detail))
    return found


def _made_by(job: Job, rule: RowRule | PairRule, *responses: Response) -> dict[str, Any]:
    return {"stage": job.name, "round": job.round, "rule": rule.rule, "model": responses[0].made_by.get("model")}


def _row(job: Job, contest: Contest, place: int, rule: RowRule) -> Row:
    prompt, response = contest.item.prompt, contest.item.responses[place]
    return Row(
        messages=(*prompt.messages, *messages_of(response)), capability=prompt.capability, language=prompt.language,
        source=prompt.source, tools=prompt.tools, reward=contest.reward(place),
        parents=(prompt.id, response.id), made_by=_made_by(job, rule, response),
    )  # fmt: skip


def _pair(job: Job, contest: Contest, better: int, worse: int, rule: PairRule) -> Pair:
    prompt, one, two = contest.item.prompt, contest.item.responses[better], contest.item.responses[worse]
    margin = None
    if rule.score in contest.item.scores:
        high, low = contest.score(rule.score, better), contest.score(rule.score, worse)
        margin = None if high is None or low is None else high - low
    return Pair(
        prompt=prompt.messages, chosen=message_of(one), rejected=message_of(two), chosen_steps=one.steps,
        rejected_steps=two.steps, capability=prompt.capability, language=prompt.language, source=prompt.source,
        tools=prompt.tools, margin=margin, prompt_id=prompt.id,
        parents=(prompt.id, one.id, two.id), made_by=_made_by(job, rule, one),
    )  # fmt: skip
