"""A small office whose tools can really be run: accounts, a calendar and boxes. Pure, so that a dialog can be replayed.

The state is plain JSON: `{"accounts": {name: amount}, "calendar": {day: [title]}, "boxes": {name: [item]}}`.
"""

import copy
from collections.abc import Callable
from typing import Any

from posttrain.data.rows import Tool, canonical_json


class State:
    """A state of its own, to be changed by calls."""

    def __init__(self, data: dict[str, Any]):
        self.data = copy.deepcopy(data)

    def key(self) -> str:
        """One text for equal states; the order within a box or a day does not count."""
        inner = {
            kind: {name: sorted(held) if isinstance(held, list) else held for name, held in part.items()}
            for kind, part in self.data.items()
        }
        return canonical_json(inner)


def _get_balance(data: dict[str, Any], account: str) -> dict[str, Any]:
    return {"balance": data["accounts"][account]}


def _transfer(data: dict[str, Any], source: str, target: str, amount: int) -> dict[str, Any]:
    accounts = data["accounts"]
    if amount <= 0 or accounts[source] < amount:
        raise ValueError("not enough money")
    accounts[target] += amount  # an unknown target fails before anything is taken
    accounts[source] -= amount
    return {"transferred": amount}


def _list_events(data: dict[str, Any], day: str) -> dict[str, Any]:
    return {"events": sorted(data["calendar"].get(day, []))}


def _add_event(data: dict[str, Any], day: str, title: str) -> dict[str, Any]:
    data["calendar"].setdefault(day, []).append(title)
    return {"added": title}


def _cancel_event(data: dict[str, Any], day: str, title: str) -> dict[str, Any]:
    data["calendar"][day].remove(title)
    return {"cancelled": title}


def _list_items(data: dict[str, Any], box: str) -> dict[str, Any]:
    return {"items": sorted(data["boxes"][box])}


def _move_item(data: dict[str, Any], item: str, source: str, target: str) -> dict[str, Any]:
    target_box = data["boxes"][target]
    data["boxes"][source].remove(item)
    target_box.append(item)
    return {"moved": item}


FUNCTIONS: dict[str, tuple[Callable[..., dict[str, Any]], str, dict[str, str]]] = {
    "get_balance": (_get_balance, "The money in an account", {"account": "string"}),
    "transfer": (_transfer, "Move money between accounts",
                 {"source": "string", "target": "string", "amount": "integer"}),
    "list_events": (_list_events, "What is planned on a day", {"day": "string"}),
    "add_event": (_add_event, "Plan something on a day", {"day": "string", "title": "string"}),
    "cancel_event": (_cancel_event, "Take something out of a day", {"day": "string", "title": "string"}),
    "list_items": (_list_items, "What is in a box", {"box": "string"}),
    "move_item": (_move_item, "Move an item to another box",
                  {"item": "string", "source": "string", "target": "string"}),
}  # fmt: skip
KINDS = {"string": str, "integer": int}


def tools(names: tuple[str, ...]) -> tuple[Tool, ...]:
    """The functions' JSON schemas."""
    return tuple(_tool(name) for name in names)


def _tool(name: str) -> Tool:
    _, description, parameters = FUNCTIONS[name]
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def run_call(state: State, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of a call, which may change the state; what cannot be done is an `error`, and changes nothing."""
    if name not in FUNCTIONS:
        return {"error": f"there is no function {name}"}
    function, _, parameters = FUNCTIONS[name]
    if arguments.keys() != parameters.keys():
        return {"error": f"{name} takes {', '.join(parameters)}"}
    for parameter, kind in parameters.items():
        if type(arguments[parameter]) is not KINDS[kind]:
            return {"error": f"{parameter} is to be a{'n' if kind == 'integer' else ''} {kind}"}
    try:
        return function(state.data, **arguments)
    except (KeyError, ValueError) as error:
        return {"error": f"cannot be done: {str(error).strip(chr(39))}"}
