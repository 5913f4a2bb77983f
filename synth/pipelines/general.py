"""General prompts, instruction following, steerability (P 4.3.7): new prompts from seeds, answers, revisions.

Some prompts get constraints that a program can check, some a system prompt on persona, length, format or language. The
teacher answers; an answer that fails its check is revised, and a share of the others too, which gives pairs.
"""

import math
from collections.abc import Iterable

from posttrain.data.rows import Check, Pair, Prompt
from synth.operators import (
    Item,
    Work,
    ask,
    converse,
    different,
    in_language,
    numbered,
    parse,
    prefer,
    revise,
    says,
    sift,
    system,
    told,
    user,
    verify,
)
from synth.operators.constraints import compose, steer
from synth.pipelines.general_spec import OVER_ASK, GeneralConfig, NewPromptsConfig
from synth.world.languages import ENGLISH_NAMES

BROKEN = "The answer does not keep to what was asked of its form or language."
FAIR = "The answer may lack something, or say more than it should."


def make(work: Work) -> None:
    """Requests for prompts → new prompts → dressed with constraints → answered → revised → kept."""
    seeds = work.seeds()
    for number, wanted in work.passes():
        items = dress(work, new_prompts(work, seeds, number, wanted, work.known_texts()))
        items = converse(work, items, lambda item: item["messages"], into="answer", temperature=0.0)
        right, wrong = by_check(work, items)
        mended = revised(work, wrong, BROKEN, "mend")
        polished = polish(work, [item for item in right if chance(work, item, "revise") < work.config.revised])
        better = {item.id: item for item in (*mended, *polished)}
        for item in (*right, *mended):
            keep(work, item, better.get(item.id))


def new_prompts(work: Work, seeds: list[Prompt], number: int, wanted: int, known: Iterable[str]) -> list[Item]:
    """Items with a `prompt` that is in their language and unlike the seeds, the known ones and each other."""
    items = ask(work, requests(work, seeds, number, wanted), "general/new_prompts", into="list")
    items = parse(work, items, numbered, of="list", into="list")
    items = [one for item in items for one in item.split("prompt", item["list"])]
    items = in_language(work, items, "prompt")
    texts = [prompt.messages[-1]["content"] for prompt in seeds]
    return different(work, items, "prompt", [*texts, *known], work.config.like)


def requests(work: Work, seeds: list[Prompt], number: int, wanted: int) -> list[Item]:
    """Requests for new prompts, each with a few seeds as examples, the languages in turn."""
    config: NewPromptsConfig = work.config
    count = math.ceil(OVER_ASK * wanted / config.batch)
    items = []
    for place in range(count):
        language = config.languages[place % len(config.languages)]
        shown = work.rng("seeds", number, place).sample(seeds, min(config.shots, len(seeds)))
        values = {
            "number": [number, place], "count": config.batch, "language": ENGLISH_NAMES[language],
            "examples": [prompt.messages[-1]["content"] for prompt in shown],
        }  # fmt: skip
        items.append(work.item(values, language, [prompt.id for prompt in shown]))
    return items


def dress(work: Work, items: list[Item]) -> list[Item]:
    """Each item with its `messages` and `check`: as it is, with constraints, or behind a system prompt."""
    config: GeneralConfig = work.config
    plain, personas = [], []
    for item in items:
        drawn, rng = chance(work, item, "dress"), work.rng("dress", item.id, "how")
        check: Check | None
        if drawn < config.constraints and item.language == "en":
            said, check = compose(rng, item["prompt"], config.most_constraints)
            plain.append(item.plus(messages=[user(f"{item['prompt']} {said}")], check=check))
        elif drawn < config.constraints + config.system:
            said, check = steer(rng, item.language)
            if said:
                plain.append(item.plus(messages=[system(said), user(item["prompt"])], check=check))
            else:
                personas.append(item)
        else:
            plain.append(item.plus(messages=[user(item["prompt"])], check=None))
    personas = in_language(work, ask(work, personas, "general/persona", into="persona"), "persona", "persona language")
    behind = [item.plus(messages=[system(item["persona"]), user(item["prompt"])], check=None) for item in personas]
    return sorted([*plain, *behind], key=lambda item: item.id)


def by_check(work: Work, items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Those whose answer is text, in its language, and passes its check; and those where that fails."""
    items = sift(
        work, items, lambda item: "call without tools" if item["answer"].get("tool_calls") else "", "answer text"
    )
    free = [item.plus(text=item["answer"]["content"]) for item in items if _language_is_free(item)]
    spoken = {item.id for item in in_language(work, free, "text", "answer language")}
    items = [item for item in items if item.id in spoken or not _language_is_free(item)]
    right = verify(work, items, "check", "answer")
    passed = {item.id for item in right}
    return right, [item for item in items if item.id not in passed]


def _language_is_free(item: Item) -> bool:
    return item["check"] is None or item["check"].name != "language"


def revised(work: Work, items: list[Item], fault: str, step: str) -> list[Item]:
    """The items whose answer was revised and passes its check then: `draft` is the old answer, `answer` the new."""
    ready = []
    for item in items:
        old = item["answer"]
        ready.append(item.plus(conversation=told(item["messages"]), draft=old, answer=old["content"], fault=fault))
    done = revise(work, ready, "general/revise", of="answer", into="better", step=step)
    return verify(work, [item.plus(answer=says(item["better"])) for item in done], "check", "answer", f"{step}: verify")


def polish(work: Work, items: list[Item]) -> list[Item]:
    """The revised items whose revision a judge prefers in both orders, with its rating."""
    done = revised(work, items, FAIR, "polish")
    return prefer(work, done, lambda item: prompt_of(work, item), "answer", "draft")


def keep(work: Work, item: Item, better: Item | None) -> None:
    """The prompt, its best answer as a dialog, and the pair where there is one."""
    prompt = prompt_of(work, item)
    answer = better["answer"] if better else item["answer"]
    row = work.row(better or item, [*prompt.messages, answer], parents=(prompt.id, *item.parents))
    pairs: list[Pair] = []
    if better:
        pairs = [work.pair(better, prompt, answer, better["draft"], better.values.get("rating"))]
    work.keep(item, prompt, [row], pairs)


def prompt_of(work: Work, item: Item) -> Prompt:
    check: Check | None = item["check"]
    return work.prompt(item, item["messages"], check=check)


def chance(work: Work, item: Item, what: str) -> float:
    return work.rng(what, item.id).random()
