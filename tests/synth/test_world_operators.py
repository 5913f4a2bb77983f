"""The rows that teach the tiny teacher its operators: each is right by the code that reads such answers."""

import json
import random

import pytest

from posttrain.chat import Renderer, parse_message
from posttrain.checks.tools import SCHEMAS, calculator
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check
from synth.operators import numbered
from synth.world import make, multilingual, operator_text
from synth.world.base import Conversation
from synth.world.operators import OPERATORS, draw

EACH = pytest.mark.parametrize("name", OPERATORS)


def rows(name: str, n: int = 30, side: str = "train") -> list[Conversation]:
    rng = random.Random(f"{name} {side}")
    return [OPERATORS[name].draw(rng, 1 + i % 2, side) for i in range(n)]


@EACH
def test_a_row_ends_with_an_answer_that_is_right_and_others_are_not(name: str) -> None:
    made = [*rows(name), *rows(name, side="heldout")]
    for row in made:
        assert [message["role"] for message in row.messages[-2:]][1] == "assistant"
        assert OPERATORS[name].right(row, row.messages[-1]["content"])
        assert not OPERATORS[name].right(row, "I do not know.")
    assert len({row.messages[-1]["content"] for row in made}) > 1


def test_translations_are_the_worlds_own_words_for_the_same_task() -> None:
    rng = random.Random(5)
    for language in ("de", "hi", "th"):
        spec = make("multilingual", rng, "train", language=language).spec
        assert multilingual.told(spec, "en") in operator_text(spec)
        assert multilingual.faithful(spec, multilingual.told(spec, language))
        assert not multilingual.faithful(spec, multilingual.told(spec, "en"))


@pytest.mark.parametrize("name", ["new_prompts", "native_prompts", "requests"])
def test_lists_are_read_as_as_many_points_as_were_asked_for(name: str) -> None:
    for row in rows(name):
        points = numbered(row.messages[-1]["content"])
        assert f"Write {len(points)} " in row.messages[0]["content"]


def test_a_calculation_is_what_the_calculator_gives() -> None:
    called = 0
    for row in rows("calculate", 60):
        calls = [one for message in row.messages for one in message.get("tool_calls", ())]
        if calls:
            called += 1
            result = calculator.run(**calls[0]["function"]["arguments"])
            assert json.loads(row.messages[3]["content"]) == result
            assert grade(Check("numeric", {"answer": result["result"]}), row.messages[-1]).value == 1.0
            assert row.tools == (SCHEMAS["calculator"],)
        else:
            assert len(row.messages) == 3
    assert 20 <= called < 60


def test_a_call_comes_back_from_the_template_as_it_went_in() -> None:
    renderer = Renderer.from_pretrained("posttrain/tiny/teacher")
    row = next(row for row in rows("calculate") if len(row.messages) == 5)
    rendered = renderer.tokenizer.decode(renderer.conversation(row.messages[:3], row.tools).ids)
    said = rendered.rsplit("<|end_header_id|>\n\n", 1)[1].removesuffix("<|eot_id|>")
    assert parse_message(said)["tool_calls"] == row.messages[2]["tool_calls"]


def test_draws_are_of_every_kind() -> None:
    rng = random.Random(1)
    texts = [str(draw(rng, 1).messages[0]["content"]) for _ in range(300)]
    for begins in (
        "Translate the text",
        "Read a conversation",
        "Write a user request",
        "Write 5 new",
        "Write 5 requests",
    ):
        assert any(text.startswith(begins) for text in texts), begins
