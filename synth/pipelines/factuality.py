"""Factuality (P 4.3.6): a probe of what the trained model knows, so that it learns to say when it does not.

The teacher asks about a snippet; the model answers K times without it; each answer is graded against the snippet as
correct and as informative. Where the answers are consistently informative and wrong, the teacher words a refusal; where
all are right, the model's own answer is kept. What it knows at times is left out: it is to know what it knows.
"""

import math

from posttrain.data.overlap import words
from posttrain.data.rows import Pair
from synth.documents import INSTRUCTIONS, Library, fence
from synth.factuality.probe import KNOWN, UNKNOWN, graded, is_wrong, probed
from synth.long_context.contexts import cut
from synth.operators import (
    Item,
    Work,
    ask,
    converse,
    different,
    in_language,
    parse,
    says,
    sift,
    tagged,
    user,
)
from synth.pipelines.factuality_spec import OVER_ASK
from synth.world.languages import ENGLISH_NAMES

LEAST_WORDS = 12
"""Of a snippet; fewer hold no fact that makes sense alone."""


def make(work: Work) -> None:
    """Snippets → questions → K answers of the student → graded → refused, or answered → kept."""
    library = Library(work.input("documents"), lambda text: len(words(text)))
    for number, wanted in work.passes():
        items = questions(work, snippets(work, library, number, wanted))
        items = converse(
            work, items, lambda item: [user(item["question"])], into="tried", n=work.config.k,
            temperature=work.config.temperature, model="student", step="student",
        )  # fmt: skip
        items = probed(work, items)
        for item in refused(work, [item for item in items if item["state"] == UNKNOWN]):
            keep(work, item)
        for item in enough(work, [item for item in items if item["state"] == KNOWN]):
            keep(work, item.plus(answer=item["tried"][0]))


def snippets(work: Work, library: Library, number: int, wanted: int) -> list[Item]:
    """Stretches of random documents that are sound, in a wanted language, and speak to nobody."""
    items = []
    for place in range(math.ceil(OVER_ASK * wanted)):
        rng = work.rng("snippet", number, place)
        title = rng.choice(library.titles)
        sound = not library.fault(title)
        snippet = rng.choice(cut(library.text(title), work.config.words, library.count)).strip() if sound else ""
        language = library.language(title) if sound else ""
        parents = [work.document(snippet, title, language)] if snippet else []
        values = {"number": [number, place], "title": title, "snippet": snippet}
        items.append(work.item(values, language or "en", parents))

    def test(item: Item) -> str:
        title = item["title"]
        if fault := library.fault(title):
            return fault
        if library.language(title) not in work.config.languages:
            return "document in another language"
        if INSTRUCTIONS.search(item["snippet"]):
            return "instructions in the document"
        return "" if len(words(item["snippet"])) >= LEAST_WORDS else "snippet is too short"

    return sift(work, items, test, "snippet", "snippet")


def questions(work: Work, items: list[Item]) -> list[Item]:
    """The snippets with a question each, in their language and unlike all others."""
    ready = [item.plus(fence=fence(item["snippet"]), language=ENGLISH_NAMES[item.language]) for item in items]
    said = ask(work, ready, "factuality/question", into="said")
    read = parse(work, said, tagged("question", "answer"), of="said", into="qa")
    asked = [item.plus(question=item["qa"]["question"]) for item in read]
    return different(
        work, in_language(work, asked, "question"), "question", work.known_texts(), work.config.like
    )  # fmt: skip


def refused(work: Work, items: list[Item]) -> list[Item]:
    """The items with the teacher's words of a model that does not know, which must not answer after all."""
    said = in_language(
        work, ask(work, items, "factuality/refuse", into="text", step="refuse"), "text", "refusal language"
    )
    found = graded(work, said, "grade the refusal")
    found = sift(
        work,
        found,
        lambda item: "answers after all" if item["grade"]["informative"] == "yes" else "",
        "refusal",
        "text",
    )
    return [item.plus(answer=says(item["text"])) for item in found]


def enough(work: Work, items: list[Item]) -> list[Item]:
    """As many of what is known as there are to be for the refusals so far."""
    states = [made.rows[0].labels["state"] for made in work.made.values()]
    room = int(work.config.known * states.count(UNKNOWN)) - states.count(KNOWN)
    places = {item.id: place for place, item in enumerate(items)}
    return sift(work, items, lambda item: "" if places[item.id] < room else "enough is known", "balance", "question")


def keep(work: Work, item: Item) -> None:
    """The question with the refusal or the answer; for a refusal the pair with the first wrong answer."""
    prompt = work.prompt(item, [user(item["question"])])
    row = work.row(
        item, [*prompt.messages, item["answer"]], parents=(prompt.id, *item.parents), labels={"state": item["state"]}
    )
    pairs: list[Pair] = []
    if item["state"] == UNKNOWN:
        wrong = next(one for one, grade in zip(item["tried"], item["grades"][1:], strict=True) if is_wrong(grade))
        pairs = [work.pair(item, prompt, item["answer"], wrong)]
    work.keep(item, prompt, [row], pairs)
