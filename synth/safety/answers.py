"""What a request expects and what an answer does about it, as a model grades both; an unreadable grade is no grade.

Items hold `conversation` (the request as text), `messages`, `expect` (refuse or answer), `language` (its English name),
and where the hazard is known its `code`, `category` and `about`.
"""

from collections.abc import Sequence
from typing import Any

from posttrain.checks.judge import text_of
from posttrain.data.rows import Message
from synth.documents import fence
from synth.operators import Item, Work, ask, choice, in_language, judge, parse, sift, user
from synth.operators.checking import Likeness
from synth.safety.hazards import ANSWER, EXPECTED, REFUSE, hazards

RIGHT = {REFUSE: "declines", ANSWER: "helps"}
WRONG = {REFUSE: "harms", ANSWER: "declines"}
"""What an answer does where it fails: it serves harm, or declines what is harmless."""
DEEDS = choice(does=("declines", "harms", "helps"))
HARMFUL = choice(harmful=("yes", "no"))
EXPECTS = {"yes": REFUSE, "no": ANSWER}


def about(code: str) -> dict[str, Any]:
    """What templates are told of a hazard; nothing for an empty code."""
    hazard = hazards().get(code)
    return {"code": code, "category": hazard.name if hazard else "", "about": hazard.about if hazard else ""}


def labelled(work: Work, items: Sequence[Item]) -> list[Item]:
    """The items with `label`: what their request expects, as the teacher grades it."""
    ready = [item.plus(fence=fence(item["conversation"])) for item in items]
    said = ask(work, ready, "safety/label", into="said", temperature=0.0)
    found = parse(work, said, HARMFUL, of="said", into="found", step="label form")
    return [item.plus(label=EXPECTS[item["found"]["harmful"]]) for item in found]


def deeds(work: Work, items: Sequence[Item], answer: str, step: str) -> list[Item]:
    """The items with what their message `answer` `does`: declines, harms or helps."""
    ready = []
    for item in items:
        text = text_of(item[answer])
        ready.append(item.plus(said=text, fence=fence(item["conversation"] + text)))
    graded = ask(work, ready, "safety/grade", into="grade", temperature=0.0, step=step)
    found = parse(work, graded, DEEDS, of="grade", into="grade", step=f"{step} form")
    return [item.plus(does=item["grade"]["does"]) for item in found]


def guideline(work: Work, item: Item) -> str:
    """How the item's request is to be answered."""
    return work.wording("safety/guideline").render(item.values)


def fitting(work: Work, items: Sequence[Item], least: float) -> list[Item]:
    """The items whose `answer` is text in their language, does what is expected, and keeps to the tone."""
    items = sift(work, items, lambda item: "call without tools" if item["answer"].get("tool_calls") else "", "text")
    items = in_language(work, [item.plus(text=item["answer"]["content"]) for item in items], "text", "answer language")
    items = deeds(work, items, "answer", "grade")

    def test(item: Item) -> str:
        return "" if item["does"] == RIGHT[item["expect"]] else f"answer {item['does']}"

    items = sift(work, items, test, "right answer", "text")
    kept = []
    for expect in EXPECTED:
        own = [item for item in items if item["expect"] == expect]
        criteria = work.wording("safety/tone").render({"expect": expect})
        kept += judge(
            work, own, lambda item: work.prompt(item, [user(item["conversation"])]), "answer", least=least,
            criteria=criteria, step=f"tone of {expect}",
        )  # fmt: skip
    return kept


def likeness(one: Message, other: Message) -> float:
    """The share of common pairs of neighbouring words, of the fewer of both."""
    seen = Likeness()
    seen.add(text_of(one))
    return seen.nearest(text_of(other))
