"""Scores of all candidates, scorer by scorer, and their combination (Llama 3, 4.2.2).

The prompts that trained the reward model are left out. Every prompt is computed once for its K answers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.data.rows import Candidates, Prompt, Response, Score, gather
from posttrain.data.tables import iter_table, read_table, write_table
from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded
from posttrain.engines.scoring import answer_list, check_rewards, load_scorer, refuse_nan, rewards, room
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.answers import answer_key, dialect_of, grade_of, message_of
from reward.best_of import curve
from reward.opinions import by_file, by_judge
from reward.probe import check_probe
from reward.score_spec import ScoreConfig
from reward.scorers import COMBINED, FILE, JUDGE, REWARD, VERIFIER, VOTES, Values, best_index, combine, votes

ScoreChunk = Callable[[list[Candidates]], list[tuple[Sequence[float | None], int]]]
"""Prompts → for each the values of its responses in order, and the tokens read for them."""


def run(job: Job) -> None:
    """Write `scores`, a row for each response and scorer; the summary says how well each scorer's best answer does.

    Raises UserError when nothing is left to score, a reward model fails its check, or a score is no number.
    """
    pool, annotated = _candidates(job)
    scored = list(_score_all(job, pool))
    job.rows["scores"] = write_table(job.folder, "scores", _rows(scored))
    filtered = sum(item.scores[COMBINED].count(None) for item in scored)
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
        found[name] = _by_chunk(job, pool, name, _OnDemand(job, name, path, pool))
        if not any(map(any_value, found[name])):
            raise UserError(
                f"nothing to score: no prompt with its answers fits the context of {name}; use shorter prompts or a "
                "reward model with a longer one"
            )
    read = [all(any_value(found[name][place]) for name in models_of(job)) for place in range(len(pool))]
    if config.votes:
        found[VOTES] = [votes([answer_key(response) for response in item.responses]) for item in pool]
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
        total = combine(scores, config.weights(), len(item.responses), require)
        yield Candidates(
            item.prompt, item.responses, {name: tuple(v) for name, v in {**scores, COMBINED: total}.items()}
        )


def _by_chunk(job: Job, pool: list[Candidates], name: str, score: ScoreChunk) -> list[Values]:
    """One scorer's values of every prompt's responses; chunks that the journal has are not computed again."""
    journal, size = job.journal("scores"), job.config.chunk
    chunks = {f"{name}-{start:08d}": pool[start : start + size] for start in range(0, len(pool), size)}
    total, done = sum(len(item.responses) for item in pool), 0
    for key, members in chunks.items():
        if key not in journal:
            scored = zip(members, score(members), strict=True)
            journal.append(
                key, [{"prompt_id": item.prompt.id, "values": list(v), "tokens": n} for item, (v, n) in scored]
            )
        tokens = sum(record["tokens"] for record in journal.chunks[key])
        done += sum(len(item.responses) for item in members)
        job.tokens += tokens
        job.progress(done, total, f"candidates by {name}", tokens)
    records = list(journal.rows(list(chunks)))
    assert [record["prompt_id"] for record in records] == [item.prompt.id for item in pool]
    return [record["values"] for record in records]


def any_value(values: Values) -> bool:
    """Whether there is one; a prompt that a reward model has no room for has none."""
    return any(value is not None for value in values)


def _graded(members: list[Candidates]) -> list[tuple[Sequence[float | None], int]]:
    return [([grade_of(item.prompt, response) for response in item.responses], 0) for item in members]


class _OnDemand:
    """A reward model that is loaded, and checked, when the first chunk asks for it."""

    def __init__(self, job: Job, name: str, path: Any, pool: list[Candidates]):
        self.job, self.name, self.path, self.pool = job, name, path, pool
        self.model: Loaded | None = None

    def __call__(self, members: list[Candidates]) -> list[tuple[Sequence[float | None], int]]:
        model = self.model = self.model or self._load()
        said = [_sayable(model, item) for item in members]
        lists = [_answer_list(model, item, texts) for item, texts in zip(members, said, strict=True)]
        rewarded = iter(rewards(model, _readable(model, lists), self.job.machine.batch_tokens))
        found: list[tuple[Sequence[float | None], int]] = []
        for item, texts, own in zip(members, said, lists, strict=True):
            if not _readable(model, [own]):
                found.append(([None] * len(item.responses), 0))
                continue
            values = next(rewarded)
            refuse_nan(values, self.name, item.prompt.id)
            by_text = dict(zip(texts, values, strict=True))
            found.append(([by_text.get(response.text) for response in item.responses], own.tokens))
        return found

    def _load(self) -> Loaded:
        model = load_scorer(self.path, self.job.machine)
        some = {id(item): item for item in (self.pool[0], self.pool[len(self.pool) // 2], self.pool[-1])}
        lists = [_answer_list(model, item, _sayable(model, item)) for item in some.values()]
        check_rewards(model, _readable(model, lists), self.name)
        check_probe(model, self.path, self.name)
        return model


def _distinct(item: Candidates) -> dict[str, Response]:
    """Answers of equal text are read once."""
    return {response.text: response for response in reversed(item.responses)}


def _sayable(model: Loaded, item: Candidates) -> dict[str, Response]:
    """The distinct answers that the model's template can say; another's may have calls that it has no words for."""
    return {text: response for text, response in _distinct(item).items() if _can_say(model, item.prompt, response)}


def _can_say(model: Loaded, prompt: Prompt, response: Response) -> bool:
    if dialect_of(response) == model.renderer.dialect:
        return True  # what a template's own reader read, it can write
    try:
        model.renderer.text(message_of(response), prompt.tools)
    except UserError:
        return False
    return True


def _readable(model: Loaded, lists: Iterable[AnswerList]) -> list[AnswerList]:
    """The lists that have answers and fit the model's context."""
    return [item for item in lists if item.answers and item.longest <= room(model)]


def _answer_list(model: Loaded, item: Candidates, said: dict[str, Response]) -> AnswerList:
    answers = [message_of(response) for response in said.values()]
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
    found = {
        "n": len(graded),
        "mean": sum(sum(grades) / len(grades) for _, grades in graded) / len(graded),
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
    """What `best_of.curve` takes, the answers that `name` has a score for."""
    for item in scored:
        places = [i for i, value in enumerate(item.scores[name]) if value is not None]
        if places:
            grades = _grades(item) if item.prompt.check else None
            reward = item.scores.get(REWARD)
            yield (
                [item.scores[name][i] or 0.0 for i in places],
                None if reward is None else [reward[i] for i in places],
                None if grades is None else [grades[i] for i in places],
            )
