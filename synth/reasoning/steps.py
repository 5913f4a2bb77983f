"""Scores of a solution's steps by a process reward model (P 4.3.3: stepwise reward models remove what reaches the
answer by wrong steps). It reads the question and the solution up to the end of each step, as an answer that ends there.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from posttrain.endpoint import Endpoint
from posttrain.errors import UserError
from synth.operators import Item, Work, says, sift, user

if TYPE_CHECKING:
    from posttrain.engines.loading import Loaded

NAME = "step_scorer"
TOO_LONG = "too long for the step scorer"


def sound(work: Work, items: list[Item]) -> list[Item]:
    """The items with `lowest`, the score of the worst step of their `solution`, that is no lower than `least_step`."""
    journal = work.job.journal(work.journal("steps"))
    lacking = [item for item in items if item.id not in journal]
    done = len(items) - len(lacking)
    for item, scores in _scored(work, lacking):
        done += 1
        journal.append(item.id, [{"scores": scores}], sync=done == len(items))
        work.job.progress(done, len(items), "solutions by their steps")
    found = {item.id: journal.chunks[item.id][0]["scores"] for item in items}

    def test(item: Item) -> str:
        if not found[item.id]:
            return TOO_LONG
        return "" if min(found[item.id]) >= work.config.least_step else "a step is scored too low"

    kept = sift(work, items, test, "steps", "solution")
    return [item.plus(lowest=min(found[item.id])) for item in kept]


def prefixes(solution: str) -> list[str]:
    """The solution up to the end of each line that says something: each is a step."""
    lines = [place for place, line in enumerate(solution.splitlines()) if line.strip()]
    return ["\n".join(solution.splitlines()[: place + 1]).strip() for place in lines]


def _scored(work: Work, items: list[Item]) -> Iterator[tuple[Item, list[float]]]:
    """Each item with the scores of its steps; none where the model has no room for the whole solution."""
    if not items:
        return
    from posttrain.engines.scoring import answer_list, check_rewards, refuse_nan, rewards, room

    name, loaded = work.model_name(NAME), _opened(work)
    first = True
    for item in items:
        tails = [[says(text)] for text in prefixes(item["solution"])]
        steps = answer_list(loaded.renderer, [user(item["question"])], (), tails)
        if steps.longest > room(loaded):
            yield item, []
            continue
        if first:
            check_rewards(loaded, [steps], name)
            first = False
        [values] = rewards(loaded, [steps], work.job.machine.batch_tokens)
        refuse_nan(values, name, item.id)
        yield item, values


def _opened(work: Work) -> "Loaded":
    """The reward model. Raises UserError for one behind an endpoint, which gives texts and no scores."""
    from posttrain.engines.scoring import load_scorer

    path: Any = work.model(NAME)
    if isinstance(path, Endpoint):
        raise UserError(f"step_scorer: {work.model_name(NAME)} is behind an endpoint; name a reward model's checkpoint")
    return load_scorer(path, work.job.machine)
