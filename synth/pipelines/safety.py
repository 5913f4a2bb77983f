"""Safety (P 5.4): prompts by hazard category that are to be declined or only sound so, and right answers to both.

The teacher writes the prompts, labels them apart from that, and answers by a guideline of tone; what an answer does is
graded, and so is its tone. Pairs set a right answer against the trained model's own failure, where the two have little
in common. Some prompts to be declined stand behind demonstrations of the user's own in which an assistant complies.
"""

import math
from collections import Counter

from posttrain.data.rows import Message
from synth.operators import Item, Work, ask, converse, different, in_language, numbered, parse, sift, system, user
from synth.pipelines.safety_spec import OVER_ASK, SafetyConfig
from synth.safety.answers import WRONG, about, deeds, fitting, guideline, labelled, likeness
from synth.safety.hazards import ANSWER, REFUSE, Seed, read_seeds
from synth.safety.many_shot import Shot, context, draw_count, read_shots
from synth.world.languages import ENGLISH_NAMES

TEMPLATE = {REFUSE: "safety/adversarial", ANSWER: "safety/borderline"}


def make(work: Work) -> None:
    """Prompts of each category and kind → labelled → answered by the guideline → set against failures → kept."""
    config: SafetyConfig = work.config
    seeds = read_seeds(work.input("seeds")) if config.seeds else []
    most = config.demonstrations_most
    shots = read_shots(work.input("demonstrations"), most, work.capability) if config.demonstrations else []
    for number, wanted in work.passes():
        known = [*work.known_texts(), *(seed.prompt for seed in seeds if number > 1)]
        items = different(work, written(work, seeds, number, wanted), "conversation", known, config.like)
        items = rightly_labelled(work, items)
        items = converse(work, items, lambda item: [system(guideline(work, item)), *item["messages"]], "answer",
                         temperature=0.0)  # fmt: skip
        items = fitting(work, items, config.least)
        items = [behind(work, item, shots) for item in items]
        rejected = failures(work, items) if config.student else {}
        for item in sorted(items, key=lambda item: (not item["own"], item.id)):
            keep(work, item, rejected.get(item.id))


def written(work: Work, seeds: list[Seed], number: int, wanted: int) -> list[Item]:
    """The user's own prompts, once, and new ones: the categories in turn."""
    items = []
    for place, (code, expect) in enumerate(dealt(work, number, wanted)):
        languages = work.config.languages
        language = languages[(place + place // len(work.config.categories)) % len(languages)]
        values = {
            "number": [number, place], "own": False, "expect": expect, "count": work.config.batch, **about(code),
            "language": ENGLISH_NAMES[language], "examples": examples(work, seeds, code, expect, (number, place)),
        }  # fmt: skip
        items.append(work.item(values, language))
    found = []
    for expect, template in TEMPLATE.items():
        asked = ask(work, [item for item in items if item["expect"] == expect], template, into="list")
        asked = parse(work, asked, numbered, of="list", into="list")
        split = [one for item in asked for one in item.split("conversation", item["list"])]
        found += in_language(work, split, "conversation")
    own = [given(work, seed) for seed in seeds] if number == 1 else []
    return [item.plus(messages=[user(item["conversation"])]) for item in (*own, *found)]


def dealt(work: Work, number: int, wanted: int) -> list[tuple[str, str]]:
    """Category and kind of each request: by the category's borderline share of what is kept and asked so far."""
    config: SafetyConfig = work.config
    labels = [row.labels for made in work.made.values() for row in made.rows]
    have = Counter((str(one["category"]), str(one["expect"])) for one in labels)
    requests = []
    for place in range(math.ceil(OVER_ASK * wanted / config.batch)):
        code = config.categories[place % len(config.categories)]
        after = have[code, REFUSE] + have[code, ANSWER] + config.batch
        due = config.borderline_of(code) * after + work.rng("kind", code).random() * config.batch
        expect = ANSWER if have[code, ANSWER] + config.batch <= due else REFUSE
        have[code, expect] += config.batch
        requests.append((code, expect))
    return requests


def examples(work: Work, seeds: list[Seed], code: str, expect: str, draw: tuple[int, int]) -> list[str]:
    """A few prompts of the same category and kind."""
    found = [seed.prompt for seed in seeds if (seed.category, seed.expect) == (code, expect)]
    for made in work.made.values():
        labels = made.rows[0].labels
        if (labels["category"], labels["expect"]) == (code, expect) and not labels["shots"] and made.prompt:
            found.append(str(made.prompt.messages[-1]["content"]))
    found = sorted(set(found))
    return work.rng("examples", *draw).sample(found, min(work.config.shots, len(found)))


def given(work: Work, seed: Seed) -> Item:
    """A prompt of the user's own file, whose label stands."""
    parent = work.document(seed.prompt, seed.place, seed.language, "safety seed")
    values = {"conversation": seed.prompt, "own": True, "expect": seed.expect, **about(seed.category)}
    return work.item(values, seed.language, [parent]).plus(language=ENGLISH_NAMES[seed.language])


def rightly_labelled(work: Work, items: list[Item]) -> list[Item]:
    """The items that are what they were written for, as the teacher finds who is not told that."""
    own = [item for item in items if item["own"]]
    found = labelled(work, [item for item in items if not item["own"]])

    def test(item: Item) -> str:
        return "" if item["label"] == item["expect"] else f"should be to {item['expect']}, and is not"

    return [*own, *sift(work, found, test, "right label", "conversation")]


def behind(work: Work, item: Item, shots: list[Shot]) -> Item:
    """The item, with its share behind demonstrations; `shots` says how many."""
    rng = work.rng("many-shot", item.id)
    if item["expect"] != REFUSE or rng.random() >= work.config.many_shot:
        return item.plus(shots=0)
    count = draw_count(rng, work.config.demonstrations_most)
    return item.plus(shots=count, messages=context(rng, shots, count, item["conversation"]))


def failures(work: Work, items: list[Item]) -> dict[str, Message]:
    """Item id → the student's wrong answer that is least like the right one, where it is unlike enough."""
    tried = converse(
        work, items, lambda item: item["messages"], into="tried", n=work.config.k, temperature=1.0, model="student",
        step="student",
    )  # fmt: skip
    singles = [one for item in tried for one in item.plus(of=item.id).split("reply", item["tried"])]
    singles = deeds(work, singles, "reply", "grade the student")
    wrong = [one for one in singles if one["does"] == WRONG[one["expect"]]]
    wrong = [one.plus(likeness=likeness(one["answer"], one["reply"])) for one in wrong]

    def test(item: Item) -> str:
        return "" if item["likeness"] <= work.config.most_like else "like the right answer"

    found: dict[str, Message] = {}
    for one in sorted(sift(work, wrong, test, "dissimilar", "said"), key=lambda one: (one["likeness"], one.id)):
        found.setdefault(one["of"], one["reply"])
    return found


def keep(work: Work, item: Item, rejected: Message | None) -> None:
    """The prompt with its right answer, and the pair; the user's own come first where there are more than wanted."""
    if not work.lacking:
        work.drop(item, "keep", "surplus", item["conversation"])
        return
    prompt = work.prompt(item, item["messages"])
    labels = {"category": item["code"], "expect": item["expect"], "shots": item["shots"]}
    row = work.row(item, [*item["messages"], item["answer"]], parents=(prompt.id, *item.parents), labels=labels)
    work.keep(item, prompt, [row], [work.pair(item, prompt, item["answer"], rejected)] if rejected else [])
