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
