"""Which messages and tools can be rendered: checked one by one, with the sentence a user needs when one cannot."""

from collections.abc import Sequence
from typing import Any

from posttrain.chat.parse import BUILTIN_TOOLS
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

ROLES = ("system", "user", "assistant", "tool", "ipython")


def checked(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages without None values, empty lists of calls and `train` flags, as templates want them.

    The role `ipython` is `tool`. Raises UserError for no messages, an unknown role, content that is not text (a tool's
    result may be any JSON), a call without name or with arguments that are no object, a `train` flag that is no bool or
    not the assistant's, and tools without a first user message.
    """
    if not messages:
        raise UserError("a conversation has no messages; drop the row or give it a user message")
    ready = [_checked(message) for message in messages]
    if tools:
        first = ready[1 if ready[0]["role"] == "system" else 0 :][:1]
        if not first or first[0]["role"] != "user":
            raise UserError("a conversation has tools but does not begin with the user; put a user message first")
    return ready


def split_tools(tools: Sequence[Tool]) -> tuple[list[str], list[Tool]]:
    """Names of the built-in tools (`{"type": "brave_search"}`), and the tools with a schema.

    Raises UserError for a tool that is neither.
    """
    builtin: list[str] = []
    custom: list[Tool] = []
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind in BUILTIN_TOOLS:
            builtin.append(kind)
        elif isinstance(tool, dict) and (kind == "function" or "function" in tool or "name" in tool):
            custom.append(tool)
        else:
            names = ", ".join(BUILTIN_TOOLS)
            raise UserError(
                f'a tool is {tool!r:.200}; write {{"type": "function", "function": …}} or a type of {names}'
            )
    return builtin, custom


def undeclared(messages: Sequence[Message], tools: Sequence[Tool]) -> list[str]:
    """Names of the tools that the messages call and that are not among the tools, each once."""
    builtin, custom = split_tools(tools)
    declared = {*builtin, *(tool.get("function", tool)["name"] for tool in custom)}
    called = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return [name for name in dict.fromkeys(called) if name not in declared]


def is_trained(message: Message) -> bool:
    """A message's own `train` flag; trained without one."""
    return message.get("train") is not False


def _checked(message: Message) -> Message:
    kept = {key: value for key, value in message.items() if value is not None}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
    role = kept.get("role")
    if role not in ROLES:
        raise UserError(f"a message has the role {role!r}; use one of {', '.join(ROLES[:4])}")
    _check_flag(kept.pop("train", None), role)
    if role == "ipython":
        kept["role"] = "tool"
    if "tool_calls" in kept:
        _check_calls(kept)
    elif kept["role"] == "tool":
        kept.setdefault("content", "")
    elif not isinstance(kept.get("content"), str):
        raise UserError(f"the content of a message of the {role} is {_kind(kept.get('content'))}; give it as text")
    return kept


def _check_flag(train: Any, role: str) -> None:
    if train is not None and not isinstance(train, bool):
        raise UserError(f"the train flag of a message is {train!r}; write true or false")
    if train and role != "assistant":
        raise UserError(f"a {role} message is flagged to be trained; only the assistant's can be")


def _check_calls(message: Message) -> None:
    if message["role"] != "assistant":
        raise UserError(f"a {message['role']} message has tool_calls; only the assistant's can")
    if not isinstance(message.get("content", ""), str):
        raise UserError(f"the content beside a call is {_kind(message['content'])}; give it as text")
    for call in message["tool_calls"]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UserError(f'a tool call is {call!r}; write it as {{"function": {{"name": …, "arguments": …}}}}')
        if not isinstance(function.get("arguments"), dict):
            kind = _kind(function.get("arguments"))
            raise UserError(
                f"the arguments of a call of {function['name']} are {kind}; give an object, not its JSON text"
            )


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
