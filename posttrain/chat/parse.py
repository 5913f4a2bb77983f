"""Generated text → assistant message, and what is nearly a call.

One call is `{"name": "f", "parameters": {...}}` (`"type": "function"` may stand in it), several are a JSON list of two
or more of these; a built-in tool is called as `<|python_tag|>brave_search.call(query="…")`, and what else follows
`<|python_tag|>` is code for the interpreter. The shape is strict: text that is nearly a call is content, so that a
verifier sees it as what it is, and comes with an `AlmostCall` that says what is wrong.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from posttrain.data.rows import Message

Dialect = Literal["posttrain", "hf", "meta"]
"""Ways to write Llama 3.1 conversations; docs/chat.md has them side by side."""

USUAL: Dialect = "posttrain"
"""The dialect of text that nothing else is said of; it reads all that the others write."""

PYTHON_TAG = "<|python_tag|>"
BUILTIN_TOOLS = {"brave_search": "query", "wolfram_alpha": "query", "code_interpreter": "code"}
"""The tools Llama 3.1 knows by name, each with its one argument, a text."""

_BUILTIN = re.compile(r'(\w+)\.call\((\w+)="(.*)"\)', re.DOTALL)
_BUILTIN_BEGINS = re.compile(rf"\s*({'|'.join(BUILTIN_TOOLS)})\.call\(")
_JSON_BEGINS = re.compile(r'\s*\[?\s*\{\s*"(name|type|parameters|arguments|function)"\s*:')
_JSON_WITHIN = re.compile(r'\{\s*"name"\s*:\s*"[^"]*"\s*,\s*"(parameters|arguments)"\s*:')


@dataclass(frozen=True)
class AlmostCall:
    """Why a text that looks like a call is none, with a reason for a person to read.

    `broken_json`, `wrong_shape` (JSON that is no call), `list` (of one call, or of several where the dialect has one),
    `text_around` (words before or after the call), `no_tag` (a built-in tool without `<|python_tag|>`), `empty`
    (nothing after `<|python_tag|>`).
    """

    kind: Literal["broken_json", "wrong_shape", "list", "text_around", "no_tag", "empty"]
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The message a text says; with an error, the text looks like a call and the message holds all of it as content."""

    message: Message
    error: AlmostCall | None = None


class _Almost(ValueError):
    def __init__(self, kind: Any, reason: str):
        super().__init__(reason)
        self.error = AlmostCall(kind, reason)


def parse_message(text: str, dialect: Dialect = "posttrain") -> Message:
    """The assistant message that `text` (without the end of turn) says."""
    return parse(text, dialect).message


def parse(text: str, dialect: Dialect = "posttrain") -> Parsed:
    """The message of a generated text without its end of turn, and what keeps a text from being the call it resembles.

    Content is stripped as the template does, in `meta` it is as it stands. `hf` and `meta` know one call a message and
    no text beside it.
    """
    before, tag, after = text.partition(PYTHON_TAG)
    try:
        if not tag or _is_json_of_calls(text, dialect):  # the tag may stand in an argument
            before, calls = "", _json_calls(text, dialect)
        else:
            calls = _after_tag(after, dialect)
        if before.strip() and dialect != "posttrain":
            raise _Almost("text_around", f"there is text before {PYTHON_TAG}")
    except _Almost as almost:
        return Parsed(_content(text, dialect), almost.error)
    if calls is None:
        return Parsed(_content(text, dialect), _resembles(text))
    tool_calls = [{"type": "function", "function": call} for call in calls]
    return Parsed({"role": "assistant", "content": before.strip(), "tool_calls": tool_calls})


def _is_json_of_calls(text: str, dialect: Dialect) -> bool:
    try:
        return _json_calls(text, dialect) is not None
    except _Almost:
        return False


def _content(text: str, dialect: Dialect) -> Message:
    return {"role": "assistant", "content": text if dialect == "meta" else text.strip()}


def _resembles(text: str) -> AlmostCall | None:
    """What is wrong with a text without tag and no JSON at its start, when there is a call in it."""
    if _BUILTIN_BEGINS.match(text):
        return AlmostCall("no_tag", f"a built-in tool is called without {PYTHON_TAG} before it")
    if _JSON_WITHIN.search(text):
        return AlmostCall("text_around", "there is text around the JSON of a call")
    return None


def _after_tag(text: str, dialect: Dialect) -> list[dict[str, Any]]:
    """The calls that follow the tag: a built-in one, JSON ones, or else one of the code interpreter."""
    if not text.strip():
        raise _Almost("empty", f"nothing follows {PYTHON_TAG}")
    match = _BUILTIN.fullmatch(text.strip())
    if match and BUILTIN_TOOLS.get(match[1]) == match[2]:
        if match[2] == "query" and ".call(" in match[3]:
            raise _Almost("list", "there are several calls of built-in tools; one is written at a time")
        return [{"name": match[1], "arguments": {match[2]: match[3]}}]
    if _JSON_BEGINS.match(text) and (calls := _json_calls(text, dialect)):
        return calls
    return [{"name": "code_interpreter", "arguments": {"code": text}}]


def _json_calls(text: str, dialect: Dialect) -> list[dict[str, Any]] | None:
    """The calls that the whole text writes as JSON; None when it does not look like JSON of calls."""
    text = text.strip()
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # not JSON, a key twice, NaN, lone surrogates, thousands of brackets
        if not _JSON_BEGINS.match(text):
            return None
        around = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        reason = "there is text after the JSON of a call" if around else f"the JSON of a call is broken ({error})"
        raise _Almost("text_around" if around else "broken_json", reason) from error
    return _calls_of(value, dialect)


def _calls_of(value: Any, dialect: Dialect) -> list[dict[str, Any]] | None:
    values = value if isinstance(value, list) else [value]
    wrong = [reason for item in values if (reason := _wrong_shape(item))]
    if not values or not any(isinstance(item, dict) and item.keys() & {"name", "parameters"} for item in values):
        return None
    if wrong:
        raise _Almost("wrong_shape", wrong[0])
    if isinstance(value, list) and (len(value) == 1 or dialect != "posttrain"):
        single = "a list of one call" if len(value) == 1 else f"{len(value)} calls"
        raise _Almost("list", f"there is {single}; a single call is written without a list")
    return [{"name": item["name"], "arguments": item["parameters"]} for item in values]


def _wrong_shape(value: Any) -> str | None:
    """What keeps a JSON value from being a call."""
    if not isinstance(value, dict):
        return f"a {type(value).__name__} stands where a call should"
    keys = value.keys() - ({"type"} if value.get("type") == "function" else set())
    if keys != {"name", "parameters"}:
        return f"a call has the keys {', '.join(sorted(keys)) or 'none'} instead of name and parameters"
    if not isinstance(value["name"], str) or not isinstance(value["parameters"], dict):
        return "the name of a call is no text, or its parameters are no object"
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    if math.isfinite(value := float(digits)):
        return value
    raise ValueError(f"{digits} is too large")
