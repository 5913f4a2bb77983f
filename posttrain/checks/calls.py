"""Tool calls: exactly these, or by the abstract-syntax rules of the Berkeley Function Calling Leaderboard (BFCL).

The rules of `call_rules` are those of gorilla's ast_checker.py, but parallel calls are matched one to one whichever
way fits, where that matches greedily.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from posttrain.checks.verdict import RIGHT, Args, Verdict
from posttrain.data.rows import Message, canonical_json

MAY_BE_LEFT_OUT = ""
"""Among a parameter's accepted values: the call may leave it out."""
_IGNORED = re.compile(r"[ ,./\-_*^]")


class Call(Args):
    name: str
    arguments: dict[str, Any]


class CallsArgs(Args):
    """The calls that are wanted."""

    calls: Sequence[Call]


class AcceptedCall(Args):
    """A function's name and for each parameter the list of values that are right; `""` among them: or none at all."""

    name: str
    arguments: dict[str, Sequence[Any]]


class AcceptedArgs(Args):
    """The calls that are wanted, each once; an empty list wants an answer in text."""

    calls: Sequence[AcceptedCall] = Field(min_length=0)


def functions_of(message: Message) -> list[dict[str, Any]]:
    return [call["function"] for call in message.get("tool_calls") or ()]


def tool_calls(message: Message, args: CallsArgs) -> Verdict:
    """The calls are exactly `calls` in any order; 2 and 2.0 are the same number."""
    wanted = sorted(_call_key(call.name, call.arguments) for call in args.calls)
    functions = functions_of(message)
    if not functions:
        return Verdict(0.0, "no call")
    got = sorted(_call_key(function["name"], function["arguments"]) for function in functions)
    if got == wanted:
        return RIGHT
    if len(got) != len(wanted):
        return Verdict(0.0, f"{len(got)} calls, {len(wanted)} wanted")
    names_differ = sorted(f["name"] for f in functions) != sorted(call.name for call in args.calls)
    return Verdict(0.0, "another function" if names_differ else "other arguments")


def _call_key(name: str, arguments: Any) -> str:
    return canonical_json([name, _numbers_as_one_kind(arguments)])


def _numbers_as_one_kind(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _numbers_as_one_kind(inner) for key, inner in value.items()}
    return [_numbers_as_one_kind(inner) for inner in value] if isinstance(value, list) else value


def call_rules(message: Message, args: AcceptedArgs) -> Verdict:
    """As many calls as wanted, each matched with another wanted one: its name, its required parameters, no others, and
    an accepted value for each."""
    functions = functions_of(message)
    if not args.calls:
        return Verdict(0.0, "a call where none was wanted") if functions else RIGHT
    if not functions:
        return Verdict(0.0, "no call")
    if len(functions) != len(args.calls):
        return Verdict(0.0, f"{len(functions)} calls, {len(args.calls)} wanted")
    faults = [[_fault(function, wanted) for wanted in args.calls] for function in functions]
    if _one_to_one([[not fault for fault in row] for row in faults]):
        return RIGHT
    alone = next(row for row in faults if all(row)) if any(all(row) for row in faults) else [["two equal calls"]]
    return Verdict(0.0, str(alone[0]) if len(alone) == 1 else _nearest(alone))


def _nearest(faults: Sequence[Any]) -> str:
    """The fault against the wanted call of the same name, where there is one."""
    return next((fault for fault in faults if fault != "another function"), "another function")


def _fault(function: dict[str, Any], wanted: AcceptedCall) -> str:
    """What is wrong with a call, or an empty text."""
    if function["name"] != wanted.name:
        return "another function"
    got = function["arguments"]
    for name, accepted in wanted.arguments.items():
        if name not in got and MAY_BE_LEFT_OUT not in accepted:
            return f"parameter {name} is missing"
    for name, value in got.items():
        if name not in wanted.arguments:
            return f"parameter {name} is not wanted"
        if not any(_accepts(value, option) for option in wanted.arguments[name]):
            return f"parameter {name} has another value"
    return ""


def _accepts(got: Any, wanted: Any) -> bool:
    """Equal, with an integer standing for a float but not the reverse, texts compared without case, blanks and
    `,./-_*^`; a wanted object has for each key the list of accepted values."""
    if isinstance(wanted, bool) or isinstance(got, bool):
        return isinstance(got, bool) and isinstance(wanted, bool) and got == wanted
    if isinstance(wanted, float):
        return isinstance(got, (int, float)) and got == wanted
    if isinstance(wanted, str):
        return isinstance(got, str) and _plain(got) == _plain(wanted)
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(got, list)
            and len(got) == len(wanted)
            and all(_accepts(one, other) for one, other in zip(got, wanted, strict=True))
        )
    if isinstance(wanted, dict):
        return isinstance(got, dict) and _accepts_object(got, wanted)
    return type(got) is type(wanted) and bool(got == wanted)


def _accepts_object(got: dict[str, Any], wanted: dict[str, Any]) -> bool:
    options = {key: value if isinstance(value, list) else [value] for key, value in wanted.items()}
    return (
        all(key in options and any(_accepts(value, option) for option in options[key]) for key, value in got.items())
        and all(key in got or MAY_BE_LEFT_OUT in accepted for key, accepted in options.items())
    )  # fmt: skip


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')


def _one_to_one(fits: list[list[bool]]) -> bool:
    """Whether every row can have a column of its own that fits it (Kuhn's augmenting paths)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))
