"""Messages, calls and tools as people write them, in the one shape that rows have. Faults are ValueErrors in words."""

import re
from typing import Any

from posttrain.data.records import parse_json
from posttrain.data.rows import Message, Tool

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "tool": "tool", "ipython": "tool", "function": "tool",
    "observation": "tool", "tool_response": "tool", "function_call": "assistant",
}  # fmt: skip
"""What people call the speakers, and what we do."""
TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")
"""How the transcripts of Anthropic's HH set begin a turn."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def messages_of(given: Any, name: str, flags: bool = False) -> tuple[Message, ...]:
    """A conversation given as a list of messages, its JSON text, or one message; `flags` keeps who is to be trained."""
    if isinstance(given, str):
        given = parsed(given, name)
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not given:
        raise ValueError(f"{name} is {short(given)}, not a list of messages")
    return tuple(_message(message, f"{name}[{index}]", flags) for index, message in enumerate(given))


def transcript(text: str) -> tuple[Message, ...]:
    """A conversation written as `Human: … Assistant: …` with empty lines between; empty when it is none."""
    parts = TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        return ()
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(
        {"role": roles[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)
    )


def user(content: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": content},)


def assistant(given: Any, name: str) -> Message:
    """An answer given as a text or a message."""
    if isinstance(given, str):
        return {"role": "assistant", "content": given}
    found = messages_of(given, name)
    require(len(found) == 1, f"{name} has {len(found)} messages; one answer is needed")
    require(found[0]["role"] == "assistant", f"{name} is a {found[0]['role']} message, not the assistant's")
    return found[0]


def _message(given: Any, name: str, flags: bool) -> Message:
    """Role, content and calls; names and call ids, which the template does not print, are left out."""
    if not isinstance(given, dict):
        raise ValueError(f"{name} is {short(given)}, not an object")
    said = given.get("role", given.get("from"))
    if not isinstance(said, str) or said not in ROLES:
        raise ValueError(f"{name}.role is {short(said)}; known are {', '.join(ROLES)}")
    role, content = ROLES[said], given.get("content", given.get("value"))
    calls = _calls(given, name) if role == "assistant" or "tool_calls" in given else []
    if said == "function_call":
        content = ""
    message: Message = {"role": role, "content": _content(content, role, name) if content or not calls else ""}
    if calls:
        require(role == "assistant", f"{name}.tool_calls cannot stand there")
        message["tool_calls"] = [_call(call, f"{name}.tool_calls") for call in calls]
    flag = _train(given, name) if flags else None
    if flag is not None:
        require(role == "assistant", f"{name} is a {role} message, and only the assistant's are trained")
        message["train"] = flag
    return message


def _calls(given: dict[str, Any], name: str) -> list[Any]:
    """OpenAI's `tool_calls` or older `function_call`, or ShareGPT's message that is one, whose text is JSON."""
    calls = given.get("tool_calls") or given.get("function_call") or []
    if given.get("from", given.get("role")) == "function_call":
        text = given.get("value", given.get("content"))
        require(isinstance(text, str), f"{name} is a function_call without a text")
        calls = parsed(str(text), name)
    calls = [calls] if isinstance(calls, dict) else calls
    require(isinstance(calls, list), f"{name}.tool_calls is no list")
    return list(calls)


def _content(given: Any, role: str, name: str) -> Any:
    """A text, also from OpenAI's list of text parts; a tool may give any JSON."""
    if isinstance(given, list) and given and all(isinstance(part, dict) and "type" in part for part in given):
        other = [part["type"] for part in given if part["type"] != "text"]
        require(not other, f"{name} holds a part of type {other[0] if other else ''}; only text can be trained")
        texts = [part.get("text") for part in given]
        require(all(isinstance(text, str) for text in texts), f"{name} has a text part without a text")
        given = "".join(texts)
    require(
        isinstance(given, str) or (role == "tool" and given is not None),
        f"{name}.content is {short(given)}, not a text",
    )
    return given


def _train(given: dict[str, Any], name: str) -> bool | None:
    """`train: true` or OpenAI's `weight: 1`, and their opposites; None where neither is said."""
    said = given.get("train", given.get("weight"))
    if said not in (None, True, False):
        raise ValueError(f"{name} has the weight {short(said)}; it is 0 or 1")
    return None if said is None else bool(said)


def _call(given: Any, name: str) -> dict[str, Any]:
    """One call in OpenAI's form; arguments may be an object or its JSON text."""
    require(isinstance(given, dict), f"{name}: a call is {short(given)}, not an object")
    function = given.get("function", given)
    named = isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]
    require(bool(named), f"{name}: a function has no name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = parsed(arguments, f"{name}: the arguments of {function['name']}") if arguments.strip() else {}
    require(isinstance(arguments, dict), f"{name}: arguments of {function['name']} are not an object")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def parsed(text: str, name: str) -> Any:
    """JSON text inside of a record."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def tools_of(given: Any) -> tuple[Tool, ...]:
    """Function schemas, bare or wrapped as `{"type": "function", "function": …}`, or their JSON text.

    A tool that is only a type, `{"type": "brave_search"}`, is built in and kept as it is; the renderer knows which are.
    """
    if not given:
        return ()
    given = parsed(given, "tools") if isinstance(given, str) else given
    require(isinstance(given, list) and all(isinstance(tool, dict) for tool in given), "tools is no list of objects")
    return tuple(map(_tool, given))


def _tool(given: Tool) -> Tool:
    if given.keys() == {"type"} and isinstance(given["type"], str) and given["type"] != "function":
        return given
    function = given.get("function", given)
    named = isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]
    require(bool(named), "a tool has no name")
    return {"type": "function", "function": function}
