"""What a model knows of a question: its answers graded against the snippet, and the state that follows.

Items hold `snippet`, `question`, the teacher's own answer in `qa`, and the student's messages in `tried`.
"""

from posttrain.checks.judge import text_of
from synth.documents import fence
from synth.operators import Item, Work, ask, choice, parse, sift

GRADE = choice(correct=("yes", "no", "unclear"), informative=("yes", "no"))
LEAST_ANSWERS = 2
"""Of the student that are whole; one says nothing of consistency."""
UNKNOWN, KNOWN = "unknown", "known"


def probed(work: Work, items: list[Item]) -> list[Item]:
    """The items with the `grades` of the student's answers and the `state` that follows from them.

    The teacher's own answer is graded first: where it is not found correct, the other grades say nothing.
    """
    singles = [
        one.plus(of=item.id, place=place)
        for item in items
        for place, one in enumerate(item.split("text", [item["qa"]["answer"], *map(text_of, item["tried"])]))
    ]
    found: dict[str, dict[int, dict[str, str]]] = {item.id: {} for item in items}
    for one in graded(work, singles, "grade"):
        found[one["of"]][one["place"]] = one["grade"]
    ready = [item.plus(grades=[grade for _, grade in sorted(found[item.id].items())]) for item in items]

    def test(item: Item) -> str:
        if len(item["tried"]) < LEAST_ANSWERS:
            return "too few answers"
        if len(item["grades"]) < len(item["tried"]) + 1:
            return "no verdict"
        if item["grades"][0] != {"correct": "yes", "informative": "yes"}:
            return "its own answer is not graded correct"
        return "" if state(work, item) else "known at times"

    return [item.plus(state=state(work, item)) for item in sift(work, ready, test, "consistency", "question")]


def state(work: Work, item: Item) -> str:
    """`known` where all the student's answers are correct, `unknown` where none is and enough claim something wrong."""
    grades = item["grades"][1:]
    if all(grade["correct"] == "yes" for grade in grades):
        return KNOWN
    if any(grade["correct"] == "yes" for grade in grades):
        return ""
    return UNKNOWN if sum(map(is_wrong, grades)) >= work.config.wrong * len(grades) else ""


def is_wrong(grade: dict[str, str]) -> bool:
    """Informative and incorrect."""
    return grade == {"correct": "no", "informative": "yes"}


def graded(work: Work, items: list[Item], step: str) -> list[Item]:
    """The items with the `grade` of their `text` against the snippet."""
    ready = [item.plus(said=item["text"], fence=fence(item["snippet"] + item["text"])) for item in items]
    said = ask(work, ready, "factuality/grade", into="grade", temperature=0.0, step=step)
    return parse(work, said, GRADE, of="grade", into="grade", step=f"{step} form")
