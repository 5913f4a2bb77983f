"""Solutions of a question: sampled, compared with its answer and with each other, graded, corrected, or with Python."""

from posttrain.chat import CONTROL_TOKENS
from posttrain.checks.tools import SCHEMAS, open_tools, run_calls
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Message, flagged
from synth.operators import Item, Work, ask, hold, judge, says, sift, system, user, verify
from synth.reasoning.steps import sound

BOXED = "\\boxed{"
STEPS = """\
1. Every step follows from the question or from steps before it, and every calculation is right.
2. Nothing that the question says is left out, and nothing is assumed that it does not say.
3. The final answer follows from the steps. One wrong step, even without harm to the answer, has at most 4."""
"""What a solution's own author is asked to look for (P 4.3.3: self-verification)."""
DOUBT = "That is not right. Find the mistake, and solve it again."
MOST_CALLS = 6
"""Programs of one solution; a chain of more has lost its way."""


def solved(work: Work, items: list[Item]) -> list[Item]:
    """The questions with `right` and `wrong`, their different solutions; those on whose answer there is no agreement
    are dropped."""
    asked = ask(work, items, "reasoning/solve", into="solutions", n=work.config.solutions) if several(work) else [
        item.plus(solutions=[item["solution"]]) for item in ask(work, items, "reasoning/solve", into="solution")
    ]  # fmt: skip
    asked = [item.plus(**sorted_out(item)) for item in asked]

    def test(item: Item) -> str:
        if item["known"]:
            return "" if item["right"] or item["wrong"] else "no final answer"
        return "" if item["share"] >= work.config.agree else "solutions reach another answer"

    return sift(work, asked, test, "agreement", "question")


def several(work: Work) -> bool:
    return bool(work.config.solutions > 1)


def sorted_out(item: Item) -> dict[str, object]:
    """`right` and `wrong` solutions, each text once, and the `share` of all that reach the answer. One without a final
    answer counts, and is neither."""
    values = {text: answer_value(item, text) for text in item["solutions"]}
    share = sum(values[text] == 1.0 for text in item["solutions"]) / len(item["solutions"])
    right = [text for text, value in values.items() if value == 1.0]
    return {"right": right, "wrong": [text for text, value in values.items() if value == 0.0], "share": share}


def answer_value(item: Item, text: str) -> float | None:
    """1 where a solution's final answer is the question's, 0 where it is another; None where it has none."""
    return grade(item["check"], says(text)).value if BOXED in text or item["check"].name != "math" else None


def verified(work: Work, items: list[Item]) -> list[Item]:
    """An item for each right `solution` whose steps the process reward model, where there is one, and the teacher find
    right."""
    single = [one for item in items for one in item.split("solution", item["right"])]
    if work.config.step_scorer:
        single = sound(work, single)
    if not work.config.verified:
        return single
    return judge(
        work, single, lambda item: work.prompt(item, [user(item["question"])]), "solution", criteria=STEPS,
        least=work.config.verified, step="self-verification",
    )  # fmt: skip


def corrected(work: Work, items: list[Item]) -> list[Item]:
    """Of the questions with a wrong solution: `messages` of a dialog in which it is doubted and put right. The wrong
    one is read, not trained."""
    if not work.config.corrected:
        return []
    ready = [item.plus(solution=item["wrong"][0]) for item in items if item["wrong"]]
    done = ask(work, ready, "reasoning/correct", into="better")
    done = [item.plus(answer=says(item["better"])) for item in done]
    done = sift(work, done, unboxed, "correct: form", "better")
    done = verify(work, done, "check", "answer", "correct: verify")
    return [
        item.plus(messages=[user(item["question"]), says(item["solution"]), user(DOUBT), item["answer"]])
        for item in done
    ]  # fmt: skip


def unboxed(item: Item) -> str:
    """Why a better solution cannot be read, if so."""
    return "" if BOXED in item["better"] or item["check"].name != "math" else "no final answer"


def with_python(work: Work, items: list[Item]) -> list[Item]:
    """Of a share of the questions: `messages` of a solution in words and programs in turn, which were run."""
    chosen = [item for item in items if work.rng("python", item.id).random() < work.config.python]
    if not chosen:
        return []
    tools = open_tools({"python": "python"})
    how = system(work.wording("reasoning/python").render({}))
    done = hold(
        work, chosen, lambda item: [how, user(item["question"])],
        lambda item: lambda messages: run_calls(tools, messages[-1]), "said",
        tools=lambda item: [SCHEMAS["python"]], most=MOST_CALLS, step="python",
    )  # fmt: skip
    done = sift(work, [item.plus(answer=item["said"][-1]) for item in done], off_form, "python: form")
    done = verify(work, done, "check", "answer", "python: verify")
    return [item.plus(messages=spoken(item)) for item in done]


def off_form(item: Item) -> str:
    """Why a dialog shows nothing about Python, if so."""
    if not any(message.get("tool_calls") for message in item["said"]):
        return "no program"
    results = [str(message["content"]) for message in item["said"] if message["role"] == "tool"]
    if any(token in text for text in results for token in CONTROL_TOKENS):
        return "control tokens"
    if all('"error"' in text for text in results):
        return "every program fails"
    return unboxed(item.plus(better=str(item["answer"].get("content") or "")))


def spoken(item: Item) -> list[Message]:
    """The question and all that was said; every message of the assistant is to be trained."""
    return [user(item["question"]), *flagged(item["said"][:-1]), item["said"][-1]]
