"""Scores of all candidates: the reward model at the end-of-turn token, votes, the verifier, and their combination.

The prompts that trained the reward model are left out. Every prompt is computed once for its K answers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain.data.rows import Candidates, Response, Score, gather
from posttrain.data.tables import iter_table, read_table, write_table
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import rewards, split_answers
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.answers import answer_key, grade_of, message_of
from reward.score_spec import ScoreConfig
from reward.scorers import COMBINED, REWARD, VERIFIER, VOTES, best_index, combine, votes


def run(job: Job) -> None:
    """Write `scores`, a row for each response and scorer; the summary says how well each scorer's best answer does."""
    pool, annotated = _candidates(job)
    scored = list(_score_all(job, pool))
    job.rows["scores"] = write_table(job.folder, "scores", _rows(scored))
    job.summary["prompts"] = {"scored": len(pool), "annotated_left_out": annotated}
    job.summary["best_of_k"] = {"all": best_of_k(scored)}
    for capability in sorted({item.prompt.capability for item in scored}):
        of_it = [item for item in scored if item.prompt.capability == capability]
        job.summary["best_of_k"][capability] = best_of_k(of_it)


def _candidates(job: Job) -> tuple[list[Candidates], int]:
    """What is to be scored in id order, and how many prompts are left out because the reward model has seen them."""
    prompts = read_table(Path(job.inputs["prompts"]), "prompts")
    pool = gather(prompts, read_table(Path(job.inputs["responses"]), "responses"))
    seen: set[str] = set()
    if "preferences" in job.inputs:
        seen = {pair.prompt_id for pair in iter_table(Path(job.inputs["preferences"]), "preferences")}
    fresh = [item for item in pool if item.prompt.id not in seen]
    if not fresh:
        raise UserError(
            f"nothing to score: {len(pool):,} of {len(prompts):,} prompts have answers, and the reward model was "
            "trained on all of those; lower annotate.share or add prompts"
        )
    return fresh, len(pool) - len(fresh)


def _score_all(job: Job, pool: list[Candidates]) -> Iterable[Candidates]:
    """The pool with its scores, chunk by chunk through the journal."""
    size: int = job.config.chunk
    model = load_model(job.inputs["reward_model"], job.machine, "reward") if "reward_model" in job.inputs else None
    journal = job.journal("scores")
    chunks = {f"{start:08d}": pool[start : start + size] for start in range(0, len(pool), size)}
    total = sum(len(item.responses) for item in pool)
    done = 0
    for name, members in chunks.items():
        if name not in journal:
            journal.append(name, _score_chunk(job, model, members))
        tokens = sum(record["tokens"] for record in journal.chunks[name])
        done += sum(len(item.responses) for item in members)
        job.tokens += tokens
        job.progress(done, total, "candidates", tokens)
    for item, record in zip(pool, journal.rows(list(chunks)), strict=True):
        assert record["prompt_id"] == item.prompt.id
        yield Candidates(item.prompt, item.responses, {name: tuple(v) for name, v in record["scores"].items()})


def _score_chunk(job: Job, model: Loaded | None, members: list[Candidates]) -> list[dict[str, Any]]:
    """For each prompt a record: the values by scorer, in the order of its responses, and the tokens read for them."""
    config: ScoreConfig = job.config
    weights = {REWARD: config.reward, VOTES: config.votes, VERIFIER: config.verifier}
    by_model = _rewards(model, members, job.machine.batch_tokens) if model else [(None, 0)] * len(members)
    records = []
    for item, (values, tokens) in zip(members, by_model, strict=True):
        scores: dict[str, Any] = {} if values is None else {REWARD: values}
        if config.votes:
            scores[VOTES] = votes([answer_key(response) for response in item.responses])
        if config.verifier:
            scores[VERIFIER] = [grade_of(item.prompt, response) for response in item.responses]
        scores[COMBINED] = combine(scores, weights, len(item.responses))
        records.append({"prompt_id": item.prompt.id, "scores": scores, "tokens": tokens})
    return records


def _rewards(model: Loaded, members: list[Candidates], batch_tokens: int) -> list[tuple[list[float] | None, int]]:
    """For each prompt the rewards of its responses and the tokens read; answers of equal text are read once."""
    distinct: list[dict[str, Response]] = [
        {response.text: response for response in reversed(item.responses)} for item in members
    ]
    conversations = [
        split_answers(
            model, item.prompt.messages, item.prompt.tools, [message_of(response) for response in own.values()]
        )
        for item, own in zip(members, distinct, strict=True)
    ]
    found: list[tuple[list[float] | None, int]] = []
    values = rewards(model, conversations, batch_tokens)
    for item, own, (prompt, tails), reward in zip(members, distinct, conversations, values, strict=True):
        by_text = dict(zip(own, reward, strict=True))
        tokens = len(prompt) + sum(map(len, tails))
        found.append(([by_text[response.text] for response in item.responses], tokens))
    return found


def _rows(scored: Iterable[Candidates]) -> Iterable[Score]:
    for item in scored:
        for scorer, values in item.scores.items():
            for response, value in zip(item.responses, values, strict=True):
                if value is not None:
                    yield Score(response.id, scorer, value)


def best_of_k(scored: Iterable[Candidates]) -> dict[str, float]:
    """Mean verifier grade over prompts with a check: of all K answers, of any of K, and of each scorer's best.

    An answer that cannot be graded counts as 0 here. Empty where no prompt has a check.
    """
    graded = [
        (item, [grade_of(item.prompt, response) or 0.0 for response in item.responses])
        for item in scored
        if item.prompt.check
    ]
    if not graded:
        return {}
    found = {
        "n": len(graded),
        "mean": sum(sum(grades) / len(grades) for _, grades in graded) / len(graded),
        "any": sum(max(grades) for _, grades in graded) / len(graded),
    }
    for scorer in graded[0][0].scores:
        found[scorer] = sum(grades[best_index(item.scores[scorer])] for item, grades in graded) / len(graded)
    return found
