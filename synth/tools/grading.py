"""Whether a dialog with the core tools is what its kind promises, and what its messages can be graded by."""

import json

from posttrain.checks.calls import functions_of
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check
from synth.operators import Item
from synth.tools.files import fault_of_file, orders
from synth.tools.plans import NEAR, NEGATIVES


def off_kind(item: Item) -> str:
    """Why a dialog is not of its kind: calls and results of another number, that fail, or without words between."""
    kind, said, desk = item["kind"], item["said"], item["desk"]
    calling = [message for message in said if functions_of(message)]
    results = [message["content"] for message in said if message["role"] == "tool"]
    if bad := next(filter(None, map(orders, results)), ""):
        return bad
    if kind in NEGATIVES or not calling:
        return "a call where none was wanted" if calling else "" if kind in NEGATIVES else "no call"
    if failed(results[-1]) or (kind == "single" and any(map(failed, results))):
        return "call fails"
    if kind == "single":
        return "" if len(calling) == 1 else "more than one step"
    if kind == "multi":
        quiet = any(not message["content"].strip() for message in calling[1:])
        return "only one step" if len(calling) < 2 else "no reasoning between calls" if quiet else ""
    if kind == "analysis":
        read = any(item["file"] in json.dumps(functions_of(message), ensure_ascii=False) for message in calling)
        return "" if read else "file not read"
    made = {name: text for name, text in desk.written.items() if name.endswith(f".{item['type']}")}
    return next((fault_of_file(name, text) for name, text in made.items()), "no file made")


def failed(result: str) -> bool:
    """Whether a tool said that it could not do what was asked."""
    told = json.loads(result) if result.startswith("{") and result.endswith("}") else {}
    return "error" in told


def checks(item: Item) -> dict[int, Check]:
    """What the dialog's messages can be graded by, by their place."""
    if item["kind"] in NEGATIVES:
        return {len(item["messages"]) - 1: Check("call_rules", {"calls": []})}
    calls = [call["name"] for message in item["said"] for call in functions_of(message)]
    if item["kind"] == "single" and calls == ["calculator"]:
        answer = json.loads(item["said"][1]["content"])["result"]
        if isinstance(answer, int | float):
            return {len(item["messages"]) - 1: Check("numeric", {"answer": answer, "relative": NEAR})}
    return {}


def says_the_result(item: Item) -> str:
    """A reason where the last answer fails its check."""
    check = item["checks"].get(len(item["messages"]) - 1)
    return "" if check is None or grade(check, item["messages"][-1]).value == 1.0 else "answer without the result"
