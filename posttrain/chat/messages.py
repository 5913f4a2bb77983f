"""Which messages can be rendered: checked one by one, with the sentence a user needs when one cannot."""

from collections.abc import Sequence
from typing import Any

from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

ROLES = ("system", "user", "assistant", "tool", "ipython")


def checked(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages without None values and empty lists of calls, as templates want them.

    Raises UserError for no messages, an unknown role, content that is not text (a tool's result may be any JSON),
    content beside tool calls, a call without name or with arguments that are no object, and tools without a first user
    message.
    """
    if not messages:
        raise UserError("a conversation has no messages; drop the row or give it a user message")
    ready = [_checked(message) for message in messages]
    if tools and next((message["role"] for message in ready if message["role"] != "system"), "") != "user":
        raise UserError("a conversation has tools but does not begin with the user; put a user message first")
    return ready


def _checked(message: Message) -> Message:
    kept = {key: value for key, value in message.items() if value is not None}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
    role = kept.get("role")
    if role not in ROLES:
        raise UserError(f"a message has the role {role!r}; use one of {', '.join(ROLES[:4])}")
    if "tool_calls" in kept:
        _check_calls(kept)
    elif role in ("tool", "ipython"):
        kept.setdefault("content", "")
    elif not isinstance(kept.get("content"), str):
        raise UserError(f"the content of a message of the {role} is {_kind(kept.get('content'))}; give it as text")
    return kept


def _check_calls(message: Message) -> None:
    if message["role"] != "assistant":
        raise UserError(f"a {message['role']} message has tool_calls; only the assistant's can")
    if message.get("content"):
        raise UserError("an assistant message has both content and tool_calls; drop one of them")
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
