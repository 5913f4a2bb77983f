"""Hypothesis strategies for conversations, shared by the chat tests."""

from typing import Any

from hypothesis import strategies as st

from posttrain.chat import CONTROL_TOKENS

plain_text = st.text(st.characters(codec="utf-8"), max_size=30).filter(
    lambda text: not any(token in text for token in CONTROL_TOKENS)
)
hostile_text = st.lists(
    st.sampled_from([*CONTROL_TOKENS[:11], "<|", "|>", "\U0010fffd", "0", "1", "2", "3", " ", "\n", "กา", '"', "user"]),
    max_size=8,
).map("".join)


def json_values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | objects(text, inner), max_leaves=6)


def objects(text: st.SearchStrategy[str], values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    return st.dictionaries(text, json_values(text) if values is None else values, max_size=3)


def calls(text: st.SearchStrategy[str], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Assistant messages that call one to `most` tools."""
    names = st.from_regex(r"[a-z_][a-z0-9_.]{0,12}", fullmatch=True)
    function = st.fixed_dictionaries({"name": names, "arguments": objects(text)})
    call = st.fixed_dictionaries({"type": st.just("function"), "function": function})
    return st.lists(call, min_size=1, max_size=most).map(
        lambda tool_calls: {"role": "assistant", "content": "", "tool_calls": tool_calls}
    )


def says(role: str, text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return text.map(lambda content: {"role": role, "content": content})


def tool_lists(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    function = st.fixed_dictionaries({"name": text, "description": text, "parameters": objects(text)})
    return st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": function}), max_size=2)


@st.composite
def conversations(draw: st.DrawFn, text: st.SearchStrategy[str], most_calls: int = 3) -> list[dict[str, Any]]:
    """Maybe a system message, then one to three exchanges, some with a call and its result; the assistant is last."""
    messages = draw(st.lists(says("system", text), max_size=1))
    for _ in range(draw(st.integers(1, 3))):
        messages.append(draw(says("user", text)))
        if draw(st.booleans()):
            messages.append(draw(calls(text, most_calls)))
            messages.append({"role": "tool", "content": draw(text | objects(text))})
        messages.append(draw(says("assistant", text) | calls(text, most_calls)))
    return messages
