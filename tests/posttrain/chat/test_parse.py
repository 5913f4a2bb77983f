"""Generated text as a message: exact calls are calls, all else is content, and what is nearly a call says why."""

import pytest

from posttrain.chat import Dialect, parse, parse_message

ONE = '{"name": "f", "parameters": {"a": {"b": [1, 2.5, null, "é"]}}}'
F = {"name": "f", "arguments": {"a": {"b": [1, 2.5, None, "é"]}}}
G = {"name": "g", "arguments": {}}
TAG = "<|python_tag|>"


def called(text: str, dialect: Dialect = "posttrain") -> tuple[str, list[object]]:
    """Content, and name and arguments of each call."""
    message = parse_message(text, dialect)
    return message["content"], [call["function"] for call in message.get("tool_calls", ())]


def test_one_call_is_a_message() -> None:
    assert parse_message(ONE) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": F}],
    }


@pytest.mark.parametrize(
    ("text", "content", "functions"),
    [
        (f" {ONE}\n", "", [F]),
        (f'[{ONE}, {{"parameters": {{}}, "name": "g"}}]', "", [F, G]),
        ('{"type": "function", "name": "g", "parameters": {}}', "", [G]),
        (f"{TAG}{ONE}", "", [F]),
        (f" Let me look.\n{TAG}[{ONE}, {ONE}]", "Let me look.", [F, F]),
        (
            '{"name": "f", "parameters": {"x": {"name": "g", "parameters": {"y": 1}}}}',
            "",
            [{"name": "f", "arguments": {"x": {"name": "g", "parameters": {"y": 1}}}}],
        ),
        (f'{TAG}brave_search.call(query="rain")', "", [{"name": "brave_search", "arguments": {"query": "rain"}}]),
        (
            f'{TAG}wolfram_alpha.call(query="is "a" a\n letter")',
            "",
            [{"name": "wolfram_alpha", "arguments": {"query": 'is "a" a\n letter'}}],
        ),
        (f"{TAG}print(1)\n", "", [{"name": "code_interpreter", "arguments": {"code": "print(1)\n"}}]),
        (f"So:{TAG}{{1: 2}}[1]", "So:", [{"name": "code_interpreter", "arguments": {"code": "{1: 2}[1]"}}]),
        (
            f'{TAG}subprocess.call(args="ls")',
            "",
            [{"name": "code_interpreter", "arguments": {"code": 'subprocess.call(args="ls")'}}],
        ),
        (
            f'{TAG}code_interpreter.call(code="print("a")")',
            "",
            [{"name": "code_interpreter", "arguments": {"code": 'print("a")'}}],
        ),
    ],
)
def test_what_is_a_call(text: str, content: str, functions: list[object]) -> None:
    assert called(text) == (content, functions)
    assert parse(text).error is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", None),
        ("The answer is 4.", None),
        ("[1, 2]", None),
        ('{"answer": 4}', None),
        ("[]", None),
        ("{ not JSON", None),
        ('{"name": "f"}', "wrong_shape"),
        ('{"name": "f", "parameters": []}', "wrong_shape"),
        ('{"name": 1, "parameters": {}}', "wrong_shape"),
        ('{"name": "f", "parameters": {}, "id": 1}', "wrong_shape"),
        ('{"name": "f", "arguments": {}}', "wrong_shape"),
        ('{"type": "tool", "name": "f", "parameters": {}}', "wrong_shape"),
        ('[{"name": "f", "parameters": {}}, 1]', "wrong_shape"),
        ('{"name": "f", "parameters": {}', "broken_json"),
        ('{"name": "f", "parameters": {"a": 1, "a": 2}}', "broken_json"),
        ('{"name": "f", "parameters": {"a": NaN}}', "broken_json"),
        ('{"name": "f", "parameters": {"a": 1e999}}', "broken_json"),
        ('{"name": "f", "parameters": {"a": "\\ud800"}}', "broken_json"),
        ('{"name": "f", "parameters": {"a": ' + "9" * 5000 + "}}", "broken_json"),
        ('{"name": "f", "parameters": {"a": ' + "[" * 100_000 + "}}", "broken_json"),
        (f'{TAG}{{"name": "f", "parameters": {{', "broken_json"),
        ('{"name": "f", "parameters": {}} Done.', "text_around"),
        ('{"name": "f", "parameters": {}}; {"name": "f", "parameters": {}}', "text_around"),
        ('I call {"name": "f", "parameters": {}}', "text_around"),
        ('[{"name": "f", "parameters": {}}]', "list"),
        (f'{TAG}brave_search.call(query="a"); brave_search.call(query="b")', "list"),
        ('brave_search.call(query="a")', "no_tag"),
        (TAG, "empty"),
    ],
    ids=lambda text: str(text)[:60],
)
def test_anything_else_is_content_and_says_what_is_wrong(text: str, kind: str | None) -> None:
    parsed = parse(text)
    assert parsed.message == {"role": "assistant", "content": text}
    assert (parsed.error and parsed.error.kind) == kind
    assert parsed.error is None or parsed.error.reason


@pytest.mark.parametrize("dialect", ["hf", "meta"])
def test_dialects_with_one_call_read_several_as_content(dialect: Dialect) -> None:
    for text, kind in ((f"[{ONE}, {ONE}]", "list"), (f"Look.{TAG}{ONE}", "text_around")):
        parsed = parse(text, dialect)
        assert parsed.message == {"role": "assistant", "content": text}
        assert parsed.error is not None and parsed.error.kind == kind
    assert called(ONE, dialect) == ("", [F])


def test_content_is_stripped_as_the_template_does() -> None:
    assert parse_message("  Four.\n")["content"] == parse_message("  Four.\n", "hf")["content"] == "Four."
    assert parse_message("  Four.\n", "meta")["content"] == "  Four.\n"
