"""Dialogs told with the tools that Llama 3.1 knows by name."""

from typing import Any

from posttrain.chat.parse import BUILTIN_TOOLS
from posttrain.checks.calls import functions_of
from posttrain.data.rows import Message
from synth.operators import Item

NAMES = {"python": "code_interpreter", "search": "brave_search", "calculator": "wolfram_alpha"}


def as_builtin(item: Item) -> Item:
    """The item with its calls as calls of built-in tools, which take one argument and are called one at a time; as it
    is where a call has more."""
    calls = [functions_of(message) for message in item["messages"]]
    if any(len(own) > 1 or any(len(call["arguments"]) != 1 for call in own) for own in calls):
        return item
    tools = [{"type": NAMES[tool["function"]["name"]]} for tool in item["tools"]]
    return item.plus(tools=tools, messages=[_message(message) for message in item["messages"]])


def _message(message: Message) -> Message:
    if not functions_of(message):
        return message
    return {**message, "tool_calls": [{"type": "function", "function": _call(call)} for call in functions_of(message)]}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    name = NAMES[call["name"]]
    return {"name": name, "arguments": {BUILTIN_TOOLS[name]: next(iter(call["arguments"].values()))}}
