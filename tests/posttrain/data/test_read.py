"""People's JSONL files: what is read, and what is said of lines that cannot be."""

import json

import pytest
from pydantic import ValidationError

from posttrain.data.read import read_rows, run
from posttrain.data.read_spec import SPEC, ReadConfig
from posttrain.data.rows import Check, Prompt
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from posttrain.stages import Job

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
OTHER = {"role": "assistant", "content": "Go away"}


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
        return path

    return write


def faults(path, form):
    with pytest.raises(UserError) as caught:
        read_rows(path, form, "general")
    return str(caught.value)


def test_messages_become_rows(write):
    path = write(
        {"messages": [USER, ANSWER], "capability": "chat", "language": "de", "extra": 1},
        "",
        {"messages": [USER, OTHER]},
    )
    first, second = read_rows(path, "messages", "general")
    assert (first.messages, first.capability, first.language, first.source) == (
        (USER, ANSWER),
        "chat",
        "de",
        "mine.jsonl",
    )
    assert (second.capability, second.language) == ("general", "en")


def test_tool_calls_keep_their_arguments_whether_text_or_object(write):
    def call(arguments):
        return {"id": "7", "type": "function", "function": {"name": "f", "arguments": arguments}}

    schema = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    lines = [
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call(arguments)]}], "tools": [tool]}
        for arguments, tool in [('{"x": 1}', schema), ({"x": 1}, {"type": "function", "function": schema})]
    ]
    first, second = read_rows(write(*lines), "messages", "tool_use")
    assert first.id == second.id
    assert first.tools == ({"type": "function", "function": schema},)
    expected = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert first.messages[1] == {"role": "assistant", "content": "", "tool_calls": [expected]}


def test_prompts_may_be_text_or_messages_and_carry_a_check(write):
    check = {"name": "exact", "args": {"answers": ["Hello"]}}
    first, second = read_rows(write({"prompt": "Hi", "check": check}, {"messages": [USER]}), "prompts", "general")
    assert first.messages == second.messages == (USER,)
    assert first.check == Check("exact", {"answers": ["Hello"]})
    assert second.check is None


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        {"messages": [USER], "chosen": ANSWER, "rejected": OTHER},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
    ],
)
def test_every_form_of_a_preference_is_the_same_pair(write, record):
    (pair,) = read_rows(write(record), "preferences", "general")
    assert (pair.prompt, pair.chosen, pair.rejected) == ((USER,), ANSWER, OTHER)
    assert pair.prompt_id == Prompt((USER,), "general").id


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    [
        ("messages", "{not json", "is not JSON"),
        ("messages", "[1]", "is a list, not an object"),
        ("messages", {"text": "x"}, "messages is missing, not a list of messages"),
        ("messages", {"messages": [USER]}, "ends with a user message"),
        ("messages", {"messages": [{"role": "human", "content": "x"}, ANSWER]}, "messages[0].role is 'human'"),
        ("messages", {"messages": [{"role": "user", "content": 3}, ANSWER]}, "messages[0].content is 3"),
        ("messages", {"messages": [{**USER, "tool_calls": [1]}, ANSWER]}, "tool_calls cannot stand there"),
        ("messages", {"messages": [USER, {**ANSWER, "tool_calls": [{"name": "f"}]}]}, "a function has no name"),
        ("messages", {"messages": [USER, ANSWER], "tools": {"a": 1}}, "tools is no list of objects"),
        ("messages", {"messages": [USER, ANSWER], "capability": 4}, "capability is 4, not a text"),
        ("messages", '{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
        ("messages", "[" * 100_000, "nested too deeply"),
        ("prompts", {"messages": [USER, ANSWER]}, "ends with an assistant message"),
        ("prompts", {"prompt": "x", "check": "exact"}, "check 'exact' has no name"),
        ("heldout", {"prompt": "x"}, "has no check"),
        ("preferences", {"prompt": "Hi", "chosen": "Hello"}, "rejected is missing"),
        ("preferences", {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}, "are the same"),
        ("preferences", {"prompt": "Hi", "chosen": [USER, ANSWER, ANSWER], "rejected": "x"}, "chosen has 2 messages"),
        ("preferences", {"chosen": [USER, ANSWER], "rejected": [ANSWER, OTHER]}, "answer different conversations"),
        ("preferences", {"chosen": "a", "rejected": "b"}, "not a list of messages"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_reason(write, form, line, reason):
    path = write("", line)
    message = faults(path, form)
    assert message.startswith(f"{path}: 1 line is not as format {form} needs\n  mine.jsonl:2: ")
    assert reason in message


def test_all_bad_lines_are_counted_and_ten_shown(write):
    message = faults(write(*["{"] * 12), "messages")
    assert "12 lines are not" in message
    assert message.count("\n  mine.jsonl:") == 10


def test_files_that_cannot_be_read(tmp_path, write):
    assert "holds no messages rows" in faults(write(""), "messages")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    assert "is not UTF-8 text" in faults(tmp_path / "latin.jsonl", "prompts")
    assert "cannot be read (No such file" in faults(tmp_path / "missing.jsonl", "prompts")


def test_the_stage_drops_duplicates_and_what_is_over_the_limit(write, tmp_path):
    path = write(*({"prompt": text} for text in ("a", "b", "a", "c")))
    folder = tmp_path / "out"
    folder.mkdir()
    job = Job(ReadConfig(path="mine.jsonl", format="prompts", rows=2), {"file": str(path)}, folder, 0)
    run(job)
    assert [prompt.messages[0]["content"] for prompt in read_table(folder, "prompts")] == ["a", "b"]
    assert job.rows == {"prompts": 2}
    assert job.summary["drops"] == {"duplicate": 1, "over the limit": 1}


def test_what_the_stage_provides_is_named_by_the_format():
    assert [SPEC.provides(ReadConfig(path="x", format=form)) for form in ("messages", "prompts", "preferences")] == [
        ("rows",), ("prompts",), ("pairs",)
    ]  # fmt: skip
    with pytest.raises(ValidationError, match="format"):
        ReadConfig(path="x", format="csv")
