"""Hypothesis strategies for conversations, shared by the chat tests."""

from typing import Any

from hypothesis import strategies as st

from posttrain.chat import CONTROL_TOKENS

PYTHON_TAG = "<|python_tag|>"

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


def nested(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Arguments of a call one of which is a call itself."""
    return st.builds(
        lambda inner, rest: {**rest, "of": {"name": "g", "parameters": inner}}, objects(text), objects(text)
    )


def functions(text: st.SearchStrategy[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"name": names, "arguments": objects(text) | nested(text)})


def message_with(*called: dict[str, Any], content: str = "") -> dict[str, Any]:
    tool_calls = [{"type": "function", "function": function} for function in called]
    return {"role": "assistant", "content": content, "tool_calls": tool_calls}


def calls(
    text: st.SearchStrategy[str], most: int, names: st.SearchStrategy[str] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """Assistant messages that call one to `most` tools; where several may be called, some have text beside them."""
    names = st.from_regex(r"[a-z_][a-z0-9_.]{0,12}", fullmatch=True) if names is None else names
    beside = untagged(text).map(str.strip) if most > 1 else st.just("")
    some = st.lists(functions(text, names), min_size=1, max_size=most)
    return st.builds(lambda called, content: message_with(*called, content=content), some, st.just("") | beside)


def builtin_calls(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Assistant messages that call one of Llama's own tools, which take one text."""
    search = st.builds(
        lambda name, query: {"name": name, "arguments": {"query": query}},
        st.sampled_from(["brave_search", "wolfram_alpha"]),
        text,
    )
    code = text.filter(str.strip).map(lambda code: {"name": "code_interpreter", "arguments": {"code": code}})
    return (search | code).map(message_with)


def untagged(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Text without the one control token that would make a call of what follows."""
    return text.filter(lambda words: PYTHON_TAG not in words)


def says(role: str, text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    text = untagged(text) if role == "assistant" else text
    return text.map(lambda content: {"role": role, "content": content})


def tool_lists(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    function = st.fixed_dictionaries({"name": text, "description": text, "parameters": objects(text)})
    return st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": function}), max_size=2)


@st.composite
def conversations(
    draw: st.DrawFn, text: st.SearchStrategy[str], most_calls: int = 3, names: st.SearchStrategy[str] | None = None
) -> list[dict[str, Any]]:
    """Maybe a system message, then one to three exchanges, some with calls and a result; the assistant is last.

    With `most_calls` 0 nothing is called.
    """
    said = says("assistant", text)
    messages = draw(st.lists(says("system", text), max_size=1))
    for _ in range(draw(st.integers(1, 3))):
        messages.append(draw(says("user", text)))
        if most_calls and draw(st.booleans()):
            messages.append(draw(calls(text, most_calls, names)))
            messages.append({"role": "tool", "content": draw(text | objects(text))})
        messages.append(draw(said | calls(text, most_calls, names) if most_calls else said))
    return messages
