"""Our template says what the Llama 3.1 template of Hugging Face says, wherever that one renders."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.chat import Renderer

from .cases import conversations, plain_text, tool_lists

TRL = find_spec("trl")
STOCK = Path(str(TRL and TRL.origin)).parent / "chat_templates" / "llama3_1.jinja"


@settings(max_examples=80, deadline=None)
@given(
    messages=conversations(plain_text, most_calls=1),
    tools=tool_lists(plain_text),
    options=st.fixed_dictionaries(
        {},
        optional={
            "tools_in_user_message": st.booleans(),
            "date_string": st.just("1 Jan 2025"),
            "add_generation_prompt": st.booleans(),
            "builtin_tools": st.just(["brave_search", "code_interpreter"]),
        },
    ),
)
def test_text_equals_the_stock_template(renderer: Renderer, messages: Any, tools: Any, options: Any) -> None:
    def text(**template: Any) -> Any:
        return renderer.tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, **options, **template
        )

    assert text() == text(chat_template=STOCK.read_text(encoding="utf-8"))


def test_a_builtin_call_goes_on_after_the_tool(renderer: Renderer) -> None:
    function = {"name": "brave_search", "arguments": {"query": "rain"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
    ]
    text = renderer.tokenizer.apply_chat_template(messages, builtin_tools=["brave_search"], tokenize=False)
    assert text.endswith('<|end_header_id|>\n\n<|python_tag|>brave_search.call(query="rain")<|eom_id|>')


def test_plain_transformers_refuses_content_beside_a_call(renderer: Renderer) -> None:
    function = {"name": "f", "arguments": {}}
    both = {"role": "assistant", "content": "x", "tool_calls": [{"type": "function", "function": function}]}
    with pytest.raises(Exception, match="either content or tool calls"):
        renderer.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}, both], tokenize=False)
