"""Calls of mined functions, really made: a program in the sandbox that imports a function, or the source of its module,
and says what it returned."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.checks.sandbox import Limits, Ran
from posttrain.checks.tools import fault_of
from posttrain.data.records import parse_json
from posttrain.data.rows import Message, content_id
from synth.operators import Item, Work, execute, sift
from synth.tools.mining import Mined

LIMITS = Limits(seconds=5.0, memory=512 << 20, processes=16, output=1 << 15)
MOST_RESULT = 1_500
"""Characters of a result; a longer one is no example."""
Call = dict[str, Any]
"""`name` and `arguments`."""

PROGRAM = """\
import contextlib, importlib, io, json, sys, types
WORD, MOST, CALLS = json.loads({payload!r})
sys.stdin = io.StringIO("")
def function(module, source, path):
    if source is not None and module not in sys.modules:
        made = sys.modules[module] = types.ModuleType(module)
        exec(compile(source, module, "exec"), made.__dict__)
    found = importlib.import_module(module)
    for name in path:
        found = getattr(found, name)
    return found
def said(call):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        value = function(call["module"], call["source"], call["path"])(*call["by_position"], **call["by_name"])
    value = printed.getvalue() if value is None and printed.getvalue() else value
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(repr(value))
    if " at 0x" in text or len(text) > MOST:
        return {{"error": "no result that can be shown"}}
    return {{"value": json.loads(text)}}
told = []
for call in CALLS:
    try:
        told.append(said(call))
    except BaseException as error:
        told.append({{"error": f"{{type(error).__name__}}: {{error}}"[:300]}})
sys.__stdout__.write("\\n" + WORD + json.dumps(told) + "\\n")
"""


def program(calls: Sequence[Call], tools: Mapping[str, Mined], word: str) -> str:
    """Python that makes the calls one after the other and writes their results behind `word`."""
    asked = []
    for call in calls:
        one, arguments = tools[call["name"]], dict(call["arguments"])
        asked.append({
            "module": one.module, "path": one.origin.removeprefix(f"{one.module}.").split("."),
            "source": Path(one.file).read_text(encoding="utf-8") if one.file else None,
            "by_position": [arguments.pop(name) for name in one.by_position if name in arguments],
            "by_name": arguments,
        })  # fmt: skip
    return PROGRAM.format(payload=json.dumps([word, MOST_RESULT, asked]))


def results(ran: Ran, word: str) -> list[dict[str, Any]]:
    """Of each call its `value`, or its `error`; none where the program did not come to its end."""
    told = [line.removeprefix(word) for line in ran.stdout.splitlines() if line.startswith(word)]
    try:
        return list(parse_json(told[-1])) if told else []
    except ValueError:
        return []


def made(work: Work, items: Sequence[Item], tools: Mapping[str, Mined], of: str, into: str, step: str) -> list[Item]:
    """The items with the values that their calls `of` returned; one with a call that does not fit its schema, fails, or
    returns nothing that can be shown is dropped."""
    items = sift(work, items, lambda item: off_schema(item[of], tools), f"{step}: schema")
    words = {item.id: content_id("result of", item.id, item[of]) for item in items}
    items = execute(
        work, items, lambda item: program(item[of], tools, words[item.id]), into="ran", limits=LIMITS, step=step
    )
    items = [item.plus(told=results(item["ran"], words[item.id])) for item in items]
    items = sift(work, items, lambda item: _failed(item["told"], len(item[of])), f"{step}: result")
    return [item.plus(**{into: [one["value"] for one in item["told"]]}) for item in items]


def off_schema(calls: Sequence[Call], tools: Mapping[str, Mined]) -> str:
    """A reason where a call does not fit what its tool declares."""
    return "arguments off the schema" if any(fault_of(tools[c["name"]].tool, c["arguments"]) for c in calls) else ""


def _failed(told: list[dict[str, Any]], count: int) -> str:
    if len(told) != count:
        return "call ends the program"
    return "call fails" if any("error" in one for one in told) else ""


def tool_message(value: Any) -> Message:
    """A result as the model is told it."""
    return {"role": "tool", "content": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
