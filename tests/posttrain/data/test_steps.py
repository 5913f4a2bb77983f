"""Pairs whose answers took several messages: read, kept, rendered, and refused where they share no prompt."""

from pathlib import Path
from typing import Any

import pytest

from posttrain.chat import CONTEXT, Renderer
from posttrain.data.formats import build
from posttrain.data.lengths import TEXT_COLUMNS, estimated
from posttrain.data.rows import Pair
from posttrain.data.tables import iter_groups, read_table, write_table
from posttrain.stages import Job
from posttrain.train.batches import lists_of, render_pair
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.preflight import preflight

ASK = {"role": "user", "content": "Weather in Rome?"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def call(city: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": {"city": city}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


RIGHT, WRONG = (call("Rome"), result("sunny"), says("It is sunny.")), (call("Paris"), result("wet"), says("It rains."))


def pairs_of(**record: Any) -> list[Pair]:
    given = {"tools": [TOOL], **record}
    return build(given, "preferences", {"capability": "tool_use", "language": "en", "source": "mine"})


@pytest.mark.parametrize(
    ("record", "prompt", "steps"),
    [
        ({"chosen": [ASK, *RIGHT], "rejected": [ASK, *WRONG]}, (ASK,), (RIGHT[:2], WRONG[:2])),
        ({"prompt": [ASK], "chosen": [*RIGHT], "rejected": [says("No idea.")]}, (ASK,), (RIGHT[:2], ())),
        ({"prompt": [ASK], "chosen": [ASK, *RIGHT], "rejected": "No idea."}, (ASK,), (RIGHT[:2], ())),
        # What both begin with is prompt: there is nothing to prefer in it.
        ({"prompt": [ASK], "chosen": [*RIGHT], "rejected": [*RIGHT[:2], says("?")]}, (ASK, *RIGHT[:2]), ((), ())),
        ({"prompt": [ASK], "responses": [[*RIGHT], [*WRONG]]}, (ASK,), (RIGHT[:2], WRONG[:2])),
    ],
)
def test_answers_of_several_messages_are_read(record: dict[str, Any], prompt: Any, steps: Any) -> None:
    (pair,) = pairs_of(**record)
    assert pair.prompt == prompt
    assert (pair.chosen_steps, pair.rejected_steps) == steps
    assert pair.chosen == RIGHT[-1]


def test_an_edited_answer_may_take_steps_too() -> None:
    pairs = pairs_of(prompt=[ASK], chosen="It is dry.", rejected="No idea.", edited=[*RIGHT])
    assert [(len(pair.chosen_steps), pair.rejected["content"], pair.rating) for pair in pairs] == [
        (0, "No idea.", None), (2, "It is dry.", "edited"), (2, "No idea.", "edited")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": [ASK, *RIGHT], "rejected": [ASK, *RIGHT[:1]]}, "one of chosen and rejected goes on where"),
        ({"prompt": [ASK], "chosen": [*RIGHT[:2]], "rejected": "x"}, "chosen ends with the result of a tool"),
        ({"prompt": [ASK], "chosen": [call("Rome"), says("x")], "rejected": "x"}, "where the tool's should stand"),
        (
            {"prompt": [ASK], "chosen": [says("a"), ASK, says("b")], "rejected": "x"},
            "goes on after an answer",
        ),
        (
            {"chosen": [ASK, says("a"), ASK, says("b")], "rejected": [ASK, says("a"), result("x"), says("b")]},
            "different",
        ),
    ],
)
def test_what_is_no_answer_to_one_prompt_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pairs_of(**record)


def test_steps_survive_the_disk_and_pairs_without_them_keep_their_id(tmp_path: Path) -> None:
    pairs = pairs_of(prompt=[ASK], responses=[[*RIGHT], [*WRONG]]) + pairs_of(prompt=[ASK], chosen="a", rejected="b")
    write_table(tmp_path, "pairs", pairs)
    assert read_table(tmp_path, "pairs") == pairs
    plain = Pair((ASK,), says("a"), says("b"), "tool_use", tools=pairs[1].tools)
    assert pairs[1].id == plain.id != pairs[0].id
    short, long = sorted(estimated(next(iter_groups(tmp_path, "pairs")), TEXT_COLUMNS["pairs"]))
    assert long > short + 40  # steps are text that a mix counts


def test_all_the_assistant_says_is_trained_and_no_result(tiny_model: Path, tmp_path: Path) -> None:
    (pair,) = pairs_of(prompt=[ASK], responses=[[*RIGHT], [*WRONG]])
    renderer = Renderer.from_pretrained(tiny_model)
    example = render_pair(renderer, pair)
    marked = zip(example["chosen_ids"], example["chosen_mask"], strict=True)
    trained = renderer.tokenizer.decode([token for token, mask in marked if mask != CONTEXT])
    assert trained == '{"name": "weather", "parameters": {"city": "Rome"}}<|eot_id|>It is sunny.<|eot_id|>'
    (listed,) = lists_of([example])
    prompt = renderer.prompt([ASK], pair.tools)
    assert listed.answers.prompt == prompt and len(listed.answers.answers) == 2
    asked = Job(DpoConfig(), {"init": tiny_model, "reference": tiny_model}, tmp_path, 17, name="dpo")
    proven = preflight(asked, renderer, [pair], lambda row: render_pair(renderer, row))
    assert [row.id for row, _ in proven] == [pair.id]
