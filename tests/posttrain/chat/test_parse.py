"""Generated text as a message: exact calls are calls, everything else is content."""

import pytest

from posttrain.chat import parse_calls, parse_message


def test_one_call_and_several() -> None:
    one = '{"name": "f", "parameters": {"a": {"b": [1, 2.5, null, "é"]}}}'
    arguments = {"a": {"b": [1, 2.5, None, "é"]}}
    assert parse_calls(f" {one}\n") == [{"name": "f", "arguments": arguments}]
    assert parse_calls(f'[{one}, {{"parameters": {{}}, "name": "g"}}]') == [
        {"name": "f", "arguments": arguments},
        {"name": "g", "arguments": {}},
    ]
    assert parse_message(one) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 4.",
        '{"name": "f"}',
        '{"name": "f", "parameters": []}',
        '{"name": 1, "parameters": {}}',
        '{"name": "f", "parameters": {}, "id": 1}',
        '{"name": "f", "arguments": {}}',
        '{"name": "f", "parameters": {}',
        '{"name": "f", "parameters": {}} Done.',
        '{"name": "f", "parameters": {"a": 1, "a": 2}}',
        '{"name": "f", "parameters": {"a": NaN}}',
        '{"name": "f", "parameters": {"a": 1e999}}',
        '{"name": "f", "parameters": {"a": "\\ud800"}}',
        '{"name": "f", "parameters": {"a": ' + "9" * 5000 + "}}",
        '{"name": "f", "parameters": {"a": ' + "[" * 100_000 + "}}",
        '{"name": "f", "parameters": {}}; {"name": "f", "parameters": {}}',
        "[]",
        '[{"name": "f", "parameters": {}}]',
        '[{"name": "f", "parameters": {}}, 1]',
    ],
    ids=lambda text: text[:60],
)
def test_anything_else_is_content(text: str) -> None:
    assert parse_message(text) == {"role": "assistant", "content": text}


def test_content_is_stripped_as_the_template_does() -> None:
    assert parse_message("  Four.\n")["content"] == "Four."
