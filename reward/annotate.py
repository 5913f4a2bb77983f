"""Preference pairs on a share of the prompts, by the verifier, a judge or people (Llama 3, 4.2.1).

The reward model learns from these pairs and does not score their prompts.
"""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

from posttrain.checks import judge
from posttrain.checks.judge import Comparison
from posttrain.data.rows import EDITED, Candidates, Message, Pair, Prompt, Response, content_id, gather
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError, WaitingForPerson
from posttrain.stages import Job
from reward import people
from reward.annotate_spec import AnnotateConfig, filled_in
from reward.answers import RIGHT, answer_key, grade_of, is_whole, message_of, said_like, share_of, text_of_all

Drops = Counter[str]
Annotator = Callable[[Job, list[Candidates]], tuple[list[Pair], Drops]]


def run(job: Job) -> None:
    """Write `preferences`; `job.summary["drops"]` counts what gave no pair, by reason.

    Raises WaitingForPerson when people are asked and have not answered yet, and UserError when no pair came of it.
    """
    config: AnnotateConfig = job.config
    prompts = read_table(Path(job.inputs["prompts"]), "prompts")
    pool = gather(prompts, read_table(Path(job.inputs["responses"]), "responses"))
    chosen = [item for item in pool if share_of("annotate", item.prompt.id) < config.share]
    pairs, drops = ANNOTATORS[config.by](job, chosen)
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


def _told(drops: Drops) -> str:
    told = [f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(drops.items())]
    return ", ".join(told) or "no prompt fell into the share"


def by_verifier(job: Job, chosen: list[Candidates]) -> tuple[list[Pair], Drops]:
    """Right answers against wrong ones."""
    pairs: list[Pair] = []
    drops: Drops = Counter()
    for item in chosen:
        found, reason = _right_and_wrong(item, job.config.pairs_per_prompt, job.rng(item.prompt.id))
        pairs += [_pair(job, item.prompt, better, worse) for better, worse in found]
        if reason:
            drops[reason] += 1
    return pairs, drops


def _right_and_wrong(
    item: Candidates, most: int, rng: random.Random
) -> tuple[list[tuple[Response, Response]], str]:  # fmt: skip
    """Up to `most` (right, wrong) answers of different messages, all for 0, or none and the reason."""
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
    return drawn(list(product(right.values(), wrong.values())), most, rng), ""


def drawn(
    found: list[tuple[Response, Response]], most: int, rng: random.Random
) -> list[tuple[Response, Response]]:  # fmt: skip
    """`most` of them by the generator, all for 0 or when they are no more."""
    return found if not most or len(found) <= most else rng.sample(found, most)


def by_judge(job: Job, chosen: list[Candidates]) -> tuple[list[Pair], Drops]:
    """What a model prefers in both orders; its ties and unreadable verdicts give no pair."""
    config: AnnotateConfig = job.config
    compared, drops = _comparisons(job, chosen)
    sampling = Sampling(temperature=0.0, max_new_tokens=config.max_new_tokens)
    with closing(open_engine(job.inputs["judge"], job.machine)) as engine:

        def ask(prompts: list[Prompt], journal: str) -> list[Response]:
            return answer_prompts(job, engine, prompts, sampling, config.chunk, config.model, journal)

        judged = judge.compare([made for made, _, _ in compared], ask, config.criteria or judge.CRITERIA)
    job.summary["judge"] = {"model": config.model, **judged.counts}
    pairs: list[Pair] = []
    for made, first, second in compared:
        preference = judged.found.get(made.id)
        if preference is None or preference.side == "tie":
            drops["tie" if preference else "no_verdict"] += 1
            continue
        better, worse = (first, second) if preference.side == "first" else (second, first)
        pairs.append(_pair(job, made.prompt, better, worse, preference.rating))
    return pairs, drops


def by_human(job: Job, chosen: list[Candidates]) -> tuple[list[Pair], Drops]:
    """What people said in the file they filled in: edited > chosen > rejected (Llama 3, 4.1.2)."""
    compared, drops = _comparisons(job, chosen)
    if "filled_in" not in job.inputs:
        _ask_people(job, [made for made, _, _ in compared])
    filled = people.read(Path(job.inputs["filled_in"]), [made for made, _, _ in compared])
    pairs: list[Pair] = []
    for made, first, second in compared:
        said = filled[made.id]
        if said.choice not in ("a", "b"):
            drops["tie" if said.choice == "tie" else "skipped"] += 1
            continue
        better, worse = (first, second) if said.choice == "a" else (second, first)
        pairs.append(_pair(job, made.prompt, better, worse, said.rating))
        edit = said_like(first, said.edited) if said.edited else None
        if edit is not None and edit in (message_of(better), message_of(worse)):
            drops["edit_changes_nothing"] += 1
        elif edit is not None:
            edited = [_pair(job, made.prompt, edit, other, EDITED) for other in (better, worse)]
            pairs += [replace(pair, chosen_steps=better.steps, id="") for pair in edited] if better.steps else edited
    return pairs, drops


def _ask_people(job: Job, comparisons: list[Comparison]) -> None:
    """Write the comparisons to be filled in. Raises WaitingForPerson, or UserError where nothing can be compared."""
    if not comparisons:
        raise UserError("there are no two different answers to compare; raise share, k or the temperature")
    people.export(job.folder, comparisons)
    name = filled_in(job.config, job.round)
    criteria = " ".join((job.config.criteria or judge.CRITERIA).split())
    count = "1 comparison waits" if len(comparisons) == 1 else f"{len(comparisons):,} comparisons wait"
    raise WaitingForPerson(
        f"{count} for a person: fill in choice, rating and edited in "
        f"{job.folder / people.CSV} (or {people.JSONL}), going by: {criteria} Save it as {name}.csv (or .jsonl) in the "
        "recipe's folder, then give the same command again"
    )


ANNOTATORS: dict[str, Annotator] = {"verifier": by_verifier, "judge": by_judge, "human": by_human}


def _comparisons(job: Job, chosen: list[Candidates]) -> tuple[list[tuple[Comparison, Response, Response]], Drops]:
    """Whole, different answers of each prompt two by two, in an order drawn by seed; and prompts without any."""
    made: list[tuple[Comparison, Response, Response]] = []
    drops: Drops = Counter()
    for item in chosen:
        distinct = list({answer_key(r): r for r in reversed(item.responses) if is_whole(r)}.values())[::-1]
        if len(distinct) < 2:
            drops["no_two_answers"] += 1
            continue
        rng = job.rng("compare", item.prompt.id)
        for two in drawn(_of_different_models(list(combinations(distinct, 2))), job.config.pairs_per_prompt, rng):
            first, second = rng.sample(two, 2)
            key = content_id(item.prompt.id, first.id, second.id)
            made.append((Comparison(key, item.prompt, text_of_all(first), text_of_all(second)), first, second))
    return made, drops


def _of_different_models(pairs: list[tuple[Response, Response]]) -> list[tuple[Response, Response]]:
    """The pairs whose answers come from two models (Llama 3, 4.2.1), all where there are none."""
    return [two for two in pairs if two[0].made_by.get("model") != two[1].made_by.get("model")] or pairs


def _pair(job: Job, prompt: Prompt, better: Response | Message, worse: Response, rating: str | None = None) -> Pair:
    """`better` is an answer, or the message that a person wrote instead."""
    known = better if isinstance(better, Response) else None
    chosen = message_of(better) if isinstance(better, Response) else better
    return Pair(
        prompt=prompt.messages, chosen=chosen, chosen_steps=known.steps if known else (), rejected=message_of(worse),
        rejected_steps=worse.steps, capability=prompt.capability,
        language=prompt.language, source=prompt.source, tools=prompt.tools, rating=rating, prompt_id=prompt.id,
        parents=(prompt.id, *([known.id] if known else []), worse.id),
        made_by={"stage": job.name, "round": job.round, "by": job.config.by},
    )  # fmt: skip
