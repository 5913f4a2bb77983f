"""Calls that are wanted: told to the teacher, checked in what it answers."""

import json
import math
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from posttrain.checks.calls import MAY_BE_LEFT_OUT, functions_of
from posttrain.checks.verifiers import grade
from posttrain.data.overlap import words
from posttrain.data.rows import Check, Message
from synth.operators import Item
from synth.tools.library import Library
from synth.tools.mining import Mined
from synth.tools.running import Call

NEGATIVES = ("unneeded", "missing", "inactive")
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
NEAR = 0.005
"""How far an answer's number may be rounded, as a share."""
SHORT = 80
"""Characters of a result that an answer is to repeat."""
TELLING = 3
"""Words of a result with more characters are looked for in the answer."""


def off_plan(item: Item) -> str:
    """Why a dialog is not what was wanted: its calls are others, or there are more or fewer of them."""
    messages = item["messages"]
    own = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
    for place, check in item["checks"].items():
        if place >= len(messages) or grade(check, messages[place]).value != 1.0:
            return "a call where none was wanted" if item["kind"] in NEGATIVES else "other calls than wanted"
    calling = sum(bool(functions_of(messages[place])) for place in own)
    return "" if calling == (0 if item["kind"] in NEGATIVES else len(item["checks"])) else "more calls than wanted"


def unsaid(item: Item) -> str:
    """A reason where the last answer does not say what the last calls gave: a number, rounded, or most of the longer
    words of a short text."""
    messages = item["messages"]
    told = [message["content"] for message in takewhile(_is_result, reversed(messages[:-1]))]
    return "" if all(_says(messages[-1]["content"], result) for result in told) else "answer without the result"


def _is_result(message: Message) -> bool:
    return bool(message["role"] == "tool")


def _says(answer: str, result: str) -> bool:
    if re.fullmatch(NUMBER, result):
        got = [float(one.replace(",", "")) for one in re.findall(NUMBER, answer)]
        return any(math.isclose(one, float(result), rel_tol=NEAR) for one in got)
    if len(result) > SHORT or result[:1] in ("{", "["):
        return True
    wanted = {word for word in words(result) if len(word) > TELLING}
    return not wanted or len(wanted & set(words(answer))) * 2 >= len(wanted)


def calls_of(item: Item) -> list[str]:
    """The names of the wanted functions, each once."""
    return list(dict.fromkeys(call["name"] for call in item["wanted"]))


def names_a_tool(item: Item) -> str:
    """Nobody who asks knows a function's name; a plain word such as `time` is no name."""
    names = [tool["name"] for tool in json.loads(item["definitions"])]
    known = [name for name in names if "_" in name or not name.islower()]
    text = item["text"]
    return "names a function" if any(name in text for name in known) or any(f"{n}(" in text for n in names) else ""


def accepted(library: Library, calls: Sequence[Call]) -> Check:
    """The check of calls: exactly these values; a parameter that has its default may be left out."""
    wanted = []
    for call in calls:
        declared = library.of_name[call["name"]].tool["function"]["parameters"]
        arguments: dict[str, list[Any]] = {}
        for name, value in declared["properties"].items():
            default = value.get("default")
            if name in call["arguments"]:
                left_out = (
                    [MAY_BE_LEFT_OUT] if name not in declared["required"] and default == call["arguments"][name] else []
                )
                arguments[name] = [call["arguments"][name], *left_out]
            elif "default" in value:
                arguments[name] = [default, MAY_BE_LEFT_OUT]
        wanted.append({"name": call["name"], "arguments": arguments})
    return Check("call_rules", {"calls": wanted})


def described(library: Library, wanted: Sequence[Call], said: list[dict[str, Any]]) -> dict[str, str]:
    """What the template of requests is given."""
    tools = [library.of_name[name] for name in dict.fromkeys(call["name"] for call in wanted)]
    calls = json.dumps(said[0] if len(said) == 1 else said, ensure_ascii=False)
    return {"definitions": definitions(tools), "calls": calls}


def definitions(tools: Sequence[Mined]) -> str:
    return json.dumps([tool.tool["function"] for tool in tools], ensure_ascii=False)


def said(call: Call) -> dict[str, Any]:
    """A call as the model writes it."""
    return {"name": call["name"], "parameters": call["arguments"]}


def within(wanted: Sequence[Call], slot: str) -> dict[str, Any]:
    """Two calls as one: the first stands where the second takes its result."""
    first, second = wanted
    return {"name": second["name"], "parameters": {**second["arguments"], slot: said(first)}}
