"""What a server's answer says: words that come with a call are kept where the reader's dialect has such."""

import json

import pytest

from posttrain.chat.parse import parse_message
from posttrain.engines.protocol import Request
from posttrain.engines.wire import completions

CALL = {"function": {"name": "f", "arguments": '{"x": 1}'}}


def text_of(content, dialect):
    message = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    answer = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
    return completions(answer, Request("r", (), (), 1), [0], False, dialect)[0].text


@pytest.mark.parametrize("content", [None, "", "  "])
def test_a_call_alone_is_its_json(content):
    assert json.loads(text_of(content, "posttrain")) == {"name": "f", "parameters": {"x": 1}}


def test_words_beside_a_call_are_read_back():
    message = parse_message(text_of("First I look it up.", "posttrain"))
    assert message["content"] == "First I look it up."
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert "look" not in text_of("First I look it up.", "hf")
