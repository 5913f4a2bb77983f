"""Scores of all candidates, scorer by scorer, and their combination (Llama 3, 4.2.2).

The prompts that trained the reward model are left out. Every prompt is computed once for its K answers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.data.rows import Candidates, Prompt, Response, Score, canonical_json, gather
from posttrain.data.tables import iter_table, read_table, write_table
from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded
from posttrain.engines.parallel import by_chunk
from posttrain.engines.scoring import answer_list, check_rewards, load_scorer, refuse_nan, rewards, room
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from reward.answers import answer_key, dialect_of, grade_of, messages_of
from reward.best_of import curve
from reward.opinions import by_file, by_judge
from reward.probe import check_probe
from reward.score_spec import ScoreConfig
from reward.scorers import COMBINED, FILE, JUDGE, REWARD, VERIFIER, VOTES, Values, best_index, combine, each, votes

Scored = list[tuple[Sequence[float | None], int]]
"""Of each prompt of a chunk the values of its responses in order, and the tokens read for them."""
ScoreChunks = Callable[[dict[str, list[Candidates]]], Iterable[tuple[str, Scored]]]
"""Chunks of prompts by name → each as it is scored."""


def run(job: Job) -> None:
    """Write `scores`, a row for each response and scorer; the summary says how well each scorer's best answer does.

    Raises UserError when nothing is left to score, a reward model fails its check, or a score is no number.
    """
    pool, annotated = _candidates(job)
    scored = list(_score_all(job, pool))
    job.rows["scores"] = write_table(job.folder, "scores", _rows(scored))
    filtered = sum(each(item.scores[COMBINED], counts(item)).count(None) for item in scored)
    job.summary["prompts"] = {"scored": len(scored), "annotated_left_out": annotated}
    job.summary["drops"] = {"too_long": len(pool) - len(scored), "filtered_answers": filtered}
    job.summary["best_of_k"] = {"all": best_of_k(scored)}
    for capability in sorted({item.prompt.capability for item in scored}):
        of_it = [item for item in scored if item.prompt.capability == capability]
        job.summary["best_of_k"][capability] = best_of_k(of_it)
    job.summary["best_of_n"] = {
        name: curve(_curve_items(scored, name)) for name in (REWARD, COMBINED) if scored and name in scored[0].scores
    }


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


def models_of(job: Job) -> dict[str, Any]:
    """The reward models that score, by scorer name: this run's, then those of `models:` in order."""
    own = {REWARD: job.inputs["reward_model"]} if "reward_model" in job.inputs else {}
    return own | dict(zip(sorted(job.config.models), job.inputs.get("models", []), strict=True))


def _score_all(job: Job, pool: list[Candidates]) -> Iterator[Candidates]:
    """The pool with its scores, chunk by chunk through the journal, without what a reward model has no room for."""
    config: ScoreConfig = job.config
    found: dict[str, list[Values]] = {}
    for name, path in models_of(job).items():
        spread = {id(item): item for item in (pool[0], pool[len(pool) // 2], pool[-1])}
        hold = partial(_open, name, path, list(spread.values()))
        found[name] = _by_chunk(job, pool, name, partial(by_chunk, job.machine, hold, _rewarded))
        if not any(map(any_value, found[name])):
            raise UserError(
                f"nothing to score: no prompt with its answers fits the context of {name}; use shorter prompts or a "
                "reward model with a longer one"
            )
    read = [all(any_value(found[name][place]) for name in models_of(job)) for place in range(len(pool))]
    if config.votes:
        found[VOTES] = [votes([answer_key(response) for response in item.responses], counts(item)) for item in pool]
    if config.verifier or VERIFIER in config.require:
        found[VERIFIER] = _by_chunk(job, pool, VERIFIER, _graded)
    if config.judge:
        found[JUDGE] = by_judge(job, pool)
    if config.file:
        found[FILE] = by_file(Path(job.inputs["file"]), pool)
    for place, item in enumerate(pool):
        if not read[place]:
            continue
        scores: dict[str, Values] = {name: values[place] for name, values in found.items()}
        # What the run's own reward model has no words for, SFT and DPO would not have either.
        require = {**({REWARD: -math.inf} if REWARD in scores else {}), **config.require}
        total = combine(scores, config.weights(), counts(item), require)
        yield Candidates(
            item.prompt, item.responses, {name: tuple(v) for name, v in {**scores, COMBINED: total}.items()}
        )


def _by_chunk(job: Job, pool: list[Candidates], name: str, score: ScoreChunks) -> list[Values]:
    """One scorer's values of every prompt's responses; chunks that the journal has are not computed again."""
    journal, size = job.journal("scores"), job.config.chunk
    chunks = {f"{name}-{start:08d}": pool[start : start + size] for start in range(0, len(pool), size)}
    total, done = sum(len(item.responses) for item in pool), 0

    def tell(key: str) -> None:
        nonlocal done
        tokens = sum(record["tokens"] for record in journal.chunks[key])
        done += sum(len(item.responses) for item in chunks[key])
        job.tokens += tokens
        job.progress(done, total, f"candidates by {name}", tokens)

    missing = {key: members for key, members in chunks.items() if key not in journal}
    for key in chunks:
        if key not in missing:
            tell(key)
    for key, scored in score(missing):
        rows = zip(chunks[key], scored, strict=True)
        journal.append(key, [{"prompt_id": item.prompt.id, "values": list(v), "tokens": n} for item, (v, n) in rows])
        tell(key)
    records = list(journal.rows(list(chunks)))
    assert [record["prompt_id"] for record in records] == [item.prompt.id for item in pool]
    return [record["values"] for record in records]


def counts(item: Candidates) -> list[int]:
    """How many samples gave each of the responses."""
    return [response.count for response in item.responses]


def any_value(values: Values) -> bool:
    """Whether there is one; a prompt that a reward model has no room for has none."""
    return any(value is not None for value in values)


def _graded(chunks: dict[str, list[Candidates]]) -> Iterator[tuple[str, Scored]]:
    for key, members in chunks.items():
        yield key, [([grade_of(item.prompt, response) for response in item.responses], 0) for item in members]


@dataclass(frozen=True)
class _Scorer:
    """A reward model that is loaded and checked, and how many tokens it reads at once."""

    name: str
    model: Loaded
    batch_tokens: int


def _open(name: str, path: Any, some: list[Candidates], machine: Machine) -> _Scorer:
    """Load a reward model and check it by a few candidates of the pool, and by what it carries with it."""
    model = load_scorer(path, machine)
    lists = [_answer_list(model, item, _sayable(model, item)) for item in some]
    check_rewards(model, _readable(model, lists), name)
    check_probe(model, path, name)
    return _Scorer(name, model, machine.batch_tokens)


def _rewarded(scorer: _Scorer, members: list[Candidates]) -> Scored:
    model = scorer.model
    said = [_sayable(model, item) for item in members]
    lists = [_answer_list(model, item, texts) for item, texts in zip(members, said, strict=True)]
    rewarded = iter(rewards(model, _readable(model, lists), scorer.batch_tokens))
    found: Scored = []
    for item, texts, own in zip(members, said, lists, strict=True):
        if not _readable(model, [own]):
            found.append(([None] * len(item.responses), 0))
            continue
        values = next(rewarded)
        refuse_nan(values, scorer.name, item.prompt.id)
        by_said = dict(zip(texts, values, strict=True))
        found.append(([by_said.get(said_key(response)) for response in item.responses], own.tokens))
    return found


def said_key(response: Response) -> str:
    """One text for answers of the same text; two models may have given the same one."""
    return canonical_json([response.steps, response.text]) if response.steps else response.text


def _sayable(model: Loaded, item: Candidates) -> dict[str, Response]:
    """The distinct answers that the model's template can say; another's may have calls that it has no words for."""
    distinct = {said_key(response): response for response in reversed(item.responses)}
    return {key: response for key, response in distinct.items() if _can_say(model, item.prompt, response)}


def _can_say(model: Loaded, prompt: Prompt, response: Response) -> bool:
    if dialect_of(response) == model.renderer.dialect:
        return True  # what a template's own reader read, it can write
    try:
        for message in messages_of(response):
            if message["role"] == "assistant":
                model.renderer.text(message, prompt.tools)
    except UserError:
        return False
    return True


def _readable(model: Loaded, lists: Iterable[AnswerList]) -> list[AnswerList]:
    """The lists that have answers and fit the model's context."""
    return [item for item in lists if item.answers and item.longest <= room(model)]


def _answer_list(model: Loaded, item: Candidates, said: dict[str, Response]) -> AnswerList:
    answers = [messages_of(response) for response in said.values()]
    return answer_list(model.renderer, item.prompt.messages, item.prompt.tools, answers)


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
    graded = [(item, _grades(item)) for item in scored if item.prompt.check]
    if not graded:
        return {}
    means = [fmean(each(grades, counts(item))) for item, grades in graded]
    found = {
        "n": len(graded),
        "mean": fmean(means),
        "any": sum(max(grades) for _, grades in graded) / len(graded),
    }
    for scorer in graded[0][0].scores:
        found[scorer] = sum(grades[best_index(item.scores[scorer])] for item, grades in graded) / len(graded)
    return found


def _grades(item: Candidates) -> list[float]:
    return [grade_of(item.prompt, response) or 0.0 for response in item.responses]


def _curve_items(
    scored: Iterable[Candidates], name: str
) -> Iterator[tuple[Sequence[float], Values | None, Values | None]]:
    """What `best_of.curve` takes, of the samples that `name` has a score for."""
    for item in scored:
        places = [i for i, value in enumerate(item.scores[name]) if value is not None]
        if places:
            often = [item.responses[i].count for i in places]
            grades = _grades(item) if item.prompt.check else None
            reward = item.scores.get(REWARD)
            yield (
                each([item.scores[name][i] or 0.0 for i in places], often),
                None if reward is None else each([reward[i] for i in places], often),
                None if grades is None else each([grades[i] for i in places], often),
            )
