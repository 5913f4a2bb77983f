"""Who may win among the candidates of one prompt."""

import random

import pytest

from posttrain.data.rows import Candidates, Prompt, Response
from reward.contest import open_contest
from reward.select_spec import SelectConfig

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("tools", "guarded"),
    [
        ((TOOL,), {1: "undeclared_tool", 2: "undeclared_tool"}),
        ((TOOL, {"type": "brave_search"}), {1: "undeclared_tool"}),
        ((), {0: "undeclared_tool", 1: "undeclared_tool", 2: "undeclared_tool"}),
    ],
)
def test_an_answer_that_calls_an_undeclared_tool_may_only_be_rejected(tools: tuple, guarded: dict[int, str]) -> None:
    prompt = Prompt(({"role": "user", "content": "x"},), "tool_use", tools=tools)
    texts = [
        '{"name": "f", "parameters": {}}',
        '[{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]',
        '<|python_tag|>brave_search.call(query="x")',
        "no call",
    ]
    answers = tuple(Response(prompt.id, i, text, "stop", 3, None, {"model": "m"}) for i, text in enumerate(texts))
    contest = open_contest(Candidates(prompt, answers), SelectConfig(), lambda *parts: random.Random(0))
    assert contest.guarded == guarded
    assert contest.places == [0, 1, 2, 3]
    assert contest.choosable == [place for place in range(4) if place not in guarded]


def contest_of(config: SelectConfig, *answers: Response):
    prompt = Prompt(({"role": "user", "content": "x"},), "general")
    return open_contest(Candidates(prompt, answers), config, lambda *parts: random.Random(":".join(map(str, parts))))


def answer(index: int, count: int, tokens: int = 3, model: str = "m", **more):
    return Response("p", index, f"text {index}", "stop", tokens, None, {"model": model}, count=count, **more)


def test_the_first_k_samples_are_told_by_their_index() -> None:
    answers = (answer(0, 2), answer(1, 1), answer(3, 1), answer(4, 2, model="n"), answer(6, 2, model="n"))
    assert contest_of(SelectConfig(k=2), *answers).places == [0, 1, 3]
    assert contest_of(SelectConfig(k=4), *answers).places == [0, 1, 2, 3, 4]


def test_the_length_guard_takes_the_median_of_all_samples() -> None:
    answers = (answer(0, 1, tokens=10), answer(1, 3, tokens=2), answer(4, 1, tokens=8))
    assert contest_of(SelectConfig(longest=2.0), *answers).guarded == {0: "too_long", 2: "too_long"}


def test_a_draw_takes_an_answer_as_often_as_it_was_given() -> None:
    contest = contest_of(SelectConfig(), answer(0, 9), answer(9, 1))
    drawn = [contest.draw(str(number), [0, 1]) for number in range(400)]
    assert 20 <= drawn.count(1) <= 62  # 40 expected; 3.5 standard deviations


def test_a_tool_called_on_the_way_must_be_declared_too() -> None:
    step = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "g", "arguments": {}}}]}
    contest = contest_of(SelectConfig(), answer(0, 1, steps=(step, {"role": "tool", "content": "1"})))
    assert contest.guarded == {0: "undeclared_tool"}
