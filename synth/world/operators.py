"""What the tiny teacher learns besides answering: the operators that pipelines ask of any teacher, word for word.

It words, translates and revises, writes lists of new requests, and calls the calculator, all about the world's tasks.
Each row is a conversation whose assistant turns are right. Judging is not among them: it takes comparing two texts,
which a model of this size did not learn from some two million tokens of it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posttrain.checks.tools import SCHEMAS, calculator, result_text
from posttrain.data.rows import Message, Prompt
from synth.operators.asking import told
from synth.pipelines.general import BROKEN, FAIR
from synth.pipelines.tools import NEEDS, OFF, ON, WHAT
from synth.prompts import operator_prompt
from synth.tools.subjects import SUBJECTS
from synth.world import Example, capability_of, make, multilingual, noise, operator_text
from synth.world.base import Conversation, Split, calls, one_of, says, split, user
from synth.world.languages import ENGLISH_NAMES, TABLE

SHORT = {"long_context": {"lengths": (100, 128)}}
"""Options of a task whose wording is asked for: the haystack does not enter it."""
POINTS = 5
"""Of a list of new requests: as many as pipelines ask for at a time."""
OPS = {"plus": "+", "minus": "-", "times": "*"}
"""What a request says and what the calculator reads."""
WORDED = 0.15
"""Share of wordings among the rows of operators."""
ARITHMETIC = ("What is {0}?", "How much is {0}?", "Tell me {0}.", "Please work out {0}.", "I want to know {0}.")


@dataclass(frozen=True)
class Operator:
    """`draw` makes a row on a side of the split; `right` says whether the last answer could also be a given text.
    `share` is its weight among the rows that are no wordings."""

    share: float
    draw: Callable[[random.Random, int, Split], Conversation]
    right: Callable[[Conversation, str], bool]


def draw(rng: random.Random, level: int) -> Conversation:
    """One training row of any operator."""
    if rng.random() < WORDED:
        return _word(rng, level)
    name = one_of(rng, *((name, operator.share) for name, operator in OPERATORS.items()))
    return OPERATORS[name].draw(rng, level, "train")


def _asked(template: str, said: str, **variables: object) -> Conversation:
    return Conversation((user(operator_prompt(template, **variables)), says(said)))


def _word(rng: random.Random, level: int) -> Conversation:
    """One to three tasks of one capability, each with the world's wording as the answer."""
    capability = rng.choice(("tool_use", "long_context", "instructions"))
    messages: list[Message] = []
    for _ in range(rng.choice((1, 3))):
        spec = make(capability, rng, "train", level, **SHORT.get(capability, {})).spec
        messages += [user(operator_text(spec)), says(capability_of(capability).state(spec, rng))]
    return Conversation(tuple(messages))


def _translate(rng: random.Random, level: int, side: Split) -> Conversation:
    """A task, or its answer, from English."""
    spec = make("multilingual", rng, side, level).spec
    language = spec["language"]
    if rng.random() < 0.6:
        return Conversation((user(operator_text(spec)), says(multilingual.told(spec, language))))
    english = multilingual.answer({**spec, "language": "en"})
    return _asked("common/translate", multilingual.answer(spec), text=english, language=ENGLISH_NAMES[language])


def _wrong(task: Example, rng: random.Random) -> Message:
    """One of the world's errors."""
    shallow, deep = noise.ERRORS[task.spec["capability"]]
    return rng.choice(noise.fitting([*shallow, *deep], task.spec, task.gold))


def _revise(rng: random.Random, level: int, side: Split) -> Conversation:
    """Mostly a wrong draft; the answer is the right one either way."""
    task = make(rng.choice(("multilingual", "instructions")), rng, side, level)
    draft = task.gold if rng.random() < 0.2 else _wrong(task, rng)
    return _asked(
        "general/revise", task.gold["content"], conversation=told(task.prompt.messages), answer=draft["content"],
        fault=rng.choice((BROKEN, FAIR)),
    )  # fmt: skip


def _new_prompts(rng: random.Random, level: int, side: Split) -> Conversation:
    """Instructions like those of the examples."""
    return _list_of(rng, side, "general/new_prompts", "en", lambda: make("instructions", rng, side, level))


def _native_prompts(rng: random.Random, level: int, side: Split) -> Conversation:
    """Stories with a question in one language; lists that are looked up in are more than a point of a list holds."""
    language = rng.choice(list(TABLE))

    def one_line() -> Example:
        while True:
            task = make("multilingual", rng, side, level, language=language)
            if task.spec["kind"] != "lookup":
                return task

    return _list_of(rng, side, "multilingual/native_prompts", language, one_line)


def _list_of(
    rng: random.Random, side: Split, template: str, language: str, one: Callable[[], Example]
) -> Conversation:  # fmt: skip
    examples = [_said(one()) for _ in range(rng.randint(2, 3))]
    new = [_said(one()) for _ in range(POINTS)]
    return _asked(template, _numbered(new), count=len(new), language=ENGLISH_NAMES[language], examples=examples)


def _said(task: Example) -> str:
    text: str = task.prompt.messages[0]["content"]
    return text


def _numbered(points: Sequence[str]) -> str:
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))


@dataclass(frozen=True)
class Sum:
    """A calculation; an easy one is done in the head."""

    words: str
    expression: str
    result: int


def _sum(rng: random.Random, easy: bool) -> Sum:
    if easy:
        first, second, word = rng.randint(2, 5), rng.randint(2, 4), "plus"
    else:
        first, second, word = rng.randint(21, 99), rng.randint(11, 20), rng.choice(list(OPS))
    expression = f"{first} {OPS[word]} {second}"
    result: int = calculator.run(expression)["result"]
    return Sum(f"{first} {word} {second}", expression, result)


def _requests(rng: random.Random, level: int, side: Split) -> Conversation:
    """Calculations to be asked for: hard ones for the calculator, easy ones where no tool is needed."""
    easy = rng.random() < 0.3
    new = [rng.choice(ARITHMETIC).format(_sum(rng, easy).words) for _ in range(POINTS)]
    what = WHAT["unneeded"] if easy else NEEDS["calculator"]
    return _asked(
        "tools/requests", _numbered(new), count=len(new), subject=rng.choice(SUBJECTS), what=what, material="",
        examples=[],
    )  # fmt: skip


def _calculate(rng: random.Random, level: int, side: Split) -> Conversation:
    """A call with its result, no call where none is needed, or a word that there is no tool."""
    while True:
        easy, on = rng.random() < 0.25, rng.random() < 0.8
        one = _sum(rng, easy)
        asked = user(rng.choice(ARITHMETIC).format(one.words))
        begun: tuple[Message, ...] = ({"role": "system", "content": ON if on else OFF}, asked)
        if split(Prompt(begun, "tool_use")) == side:
            break
    answer = says(f"{one.words} is {one.result}.")
    if easy or not on:
        last = answer if easy else says(f"I have no tool to work out {one.words}.")
        return Conversation((*begun, last), (SCHEMAS["calculator"],) if on else ())
    call = {**calls({"name": "calculator", "arguments": {"expression": one.expression}}), "content": "I compute it."}
    result = {"role": "tool", "content": result_text({"result": one.result})}
    return Conversation((*begun, call, result, answer), (SCHEMAS["calculator"],))


def _same(row: Conversation, text: str) -> bool:
    return str(row.messages[-1]["content"]) == text


def _as_many_points(row: Conversation, text: str) -> bool:
    """A numbered list of as many points, each new."""
    wanted = str(row.messages[-1]["content"]).splitlines()
    points = text.splitlines()
    marks = [point.partition(" ")[0] for point in points]
    return marks == [point.partition(" ")[0] for point in wanted] and len(set(points)) == len(wanted)


OPERATORS = {
    "translate": Operator(2.0, _translate, _same),
    "revise": Operator(1.2, _revise, _same),
    "new_prompts": Operator(0.5, _new_prompts, _as_many_points),
    "native_prompts": Operator(0.6, _native_prompts, _as_many_points),
    "requests": Operator(0.4, _requests, _as_many_points),
    "calculate": Operator(0.8, _calculate, _same),
}
