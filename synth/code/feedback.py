"""Execution feedback (P 4.3.1): a solution is parsed, linted and tested; what fails goes back to the teacher with what
the parser, the linter and the tests said, and it corrects the solution or the tests."""

import re
from collections.abc import Sequence

from posttrain.chat import CONTROL_TOKENS
from posttrain.data.rows import Message
from synth.code.languages import LANGUAGES
from synth.code.linting import findings
from synth.code.toolchains import read_blocks, run_with
from synth.operators import Item, Unreadable, Work, ask, parse, says, sift, user

FIX = re.compile(r"\A\s*<fix>(solution|tests)</fix>\s*")
FAILURES = {"linter": "linter complains", "compiler": "does not compile", "tests": "tests fail"}
MOST_TOLD = 3_000
"""Characters of feedback."""


def solved(work: Work, items: list[Item]) -> list[Item]:
    """Items with a `problem` → with `answer` (a text), its `code`, and `tests` that test it."""
    items = read_blocks(
        work, ask(work, items, "code/solution", into="answer"), "in", "answer", "code", "solution: parse"
    )
    items = ask(work, items, "code/tests", into="said")
    items = read_blocks(work, items, "in", "said", "tests", "tests: parse")
    least = work.config.least_tests
    return sift(work, items, lambda item: "too few tests" if asserts(item) < least else "", "tests: count", "tests")


def asserts(item: Item) -> int:
    """Assertions of an item's tests."""
    return len(re.findall(LANGUAGES[item["in"]].asserts, item["tests"], re.MULTILINE))


def corrected(work: Work, items: list[Item]) -> list[Item]:
    """The items whose code passes, at once or after corrections: `turns` are the failed answers, each with what it was
    told; `revisions` how often something was corrected."""
    items = [item.plus(turns=[], revisions=0) for item in items]
    done: list[Item] = []
    for attempt in range(work.config.revisions + 1):
        right, wrong = checked(work, items, attempt)
        done += right
        if attempt == work.config.revisions:
            for item in wrong:
                work.drop(item, "feedback", FAILURES[item["step"]], item["feedback"])
        else:
            items = revised(work, sift(work, wrong, _hostile, "feedback", "feedback"))
    return telling(work, done)


def _hostile(item: Item) -> str:
    """Why what a program printed cannot be shown, if so."""
    return "control tokens" if any(token in item["feedback"] for token in CONTROL_TOKENS) else ""


def checked(work: Work, items: list[Item], attempt: int) -> tuple[list[Item], list[Item]]:
    """Those that pass parser, linter and tests; and the others with `step`, where they fail, and `feedback`."""
    python = [item for item in items if item["in"] == "python"]
    found = dict(zip((item.id for item in python), findings([item["code"] for item in python]), strict=True))
    wrong = [item.plus(step="linter", feedback="\n".join(found[item.id])) for item in python if found[item.id]]
    sound = [item for item in items if not found.get(item.id)]
    ran = run_with(work, sound, lambda item: (item["in"], item["code"], item["tests"]), f"tests {attempt + 1}")
    for item in ran:
        if not item["outcome"].finished:
            step = "compiler" if item["outcome"].step == "compile" else "tests"
            wrong.append(item.plus(step=step, feedback=item["outcome"].told()[-MOST_TOLD:]))
    return [item for item in ran if item["outcome"].finished], wrong


def revised(work: Work, items: list[Item]) -> list[Item]:
    """Items with a corrected solution, or corrected tests where it was tests that failed."""
    done = parse(work, ask(work, items, "code/revise", into="said"), which, "said", "fix", "revise: parse")
    done = [item.plus(revisions=item["revisions"] + 1, said=FIX.sub("", item["said"])) for item in done]
    code = [
        item.plus(turns=[*item["turns"], says(item["answer"]), user(told(item))], answer=item["said"])
        for item in done if item["fix"] == "solution"
    ]  # fmt: skip
    tests = sift(
        work, [item.plus(before=asserts(item)) for item in done if item["fix"] == "tests"],
        lambda item: "" if item["step"] == "tests" else "tests blamed for another fault", "revise: parse",
    )  # fmt: skip
    tests = read_blocks(work, tests, "in", "said", "tests", "revise: parse")
    tests = sift(work, tests, lambda item: "fewer tests" if asserts(item) < item["before"] else "", "revise: tests")
    return [*read_blocks(work, code, "in", "answer", "code", "revise: parse"), *tests]


def which(text: str) -> str:
    """What a correction corrects."""
    found = FIX.match(text)
    if not found:
        raise Unreadable("no <fix>")
    return found[1]


def told(item: Item) -> str:
    """What a person would paste who has run an answer."""
    mark = LANGUAGES[item["in"]].marks[0]
    if item["step"] != "tests":
        return f"The {item['step']} complains:\n```\n{item['feedback']}\n```\nPlease correct the solution."
    return (
        f"I ran these tests:\n```{mark}\n{item['tests'].strip()}\n```\nThey fail:\n```\n{item['feedback']}\n```\n"
        "Please correct the solution."
    )


def telling(work: Work, items: Sequence[Item]) -> list[Item]:
    """The items whose tests fail without the solution: others would pass anything."""
    ran = run_with(work, items, lambda item: (item["in"], "", item["tests"]), "tests alone")
    return sift(work, ran, lambda item: "tests pass without a solution" if item["outcome"].finished else "",
                "tests alone: fail", "tests")  # fmt: skip


def dialog(item: Item) -> list[Message]:
    """Problem, failed answers with what was said of them (read, not trained), and the answer that passes."""
    return [user(item["problem"]), *item["turns"], says(item["answer"])]
