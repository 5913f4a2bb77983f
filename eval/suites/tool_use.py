"""Function calling by BFCL's rules: one function to call of one or of several, several calls at once, a request that no
function fits, and one that any call is right for.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eval.suites.making import Answering, Item, asks, called, file_items, reference, says, write_suite
from eval.suites.tool_use_spec import ToolUseConfig
from posttrain.data.conversation import messages_of, tools_of
from posttrain.data.records import Record
from posttrain.data.rows import Check, Tool
from posttrain.data.shares import largest_remainder
from posttrain.stages import Job

CALLS = {"simple": (1, 1), "multiple": (3, 1), "parallel": (1, 2), "parallel_multiple": (3, 2)}
"""Category → functions offered, calls wanted."""
PLACES = ("Lisbon", "Oslo", "Vienna", "Toronto", "Nairobi", "Hanoi", "Quito", "Dublin", "Prague", "Athens")
PEOPLE = ("Mara", "Jonas", "Aiko", "Pedro", "Lena", "Samir", "Ruth", "Ivan", "Clara", "Tom")
THINGS = ("lamp", "chair", "kettle", "bicycle", "camera", "guitar", "carpet", "clock", "jacket", "tent")
TYPES = {"place": "string", "person": "string", "thing": "string", "number": "integer", "price": "number"}


@dataclass(frozen=True)
class Function:
    """A function, how a user asks for it, and the kind of each parameter; `optional` has a default nobody names."""

    name: str
    description: str
    asked: str
    parameters: dict[str, str]
    optional: str = ""


FUNCTIONS = (
    Function("get_forecast", "Weather forecast for a place", "What will the weather be in {place} for {days} days?",
             {"place": "place", "days": "number"}, "units"),
    Function("book_table", "Reserve a table at a restaurant", "Book a table for {guests} in {city}.",
             {"city": "place", "guests": "number"}, "time"),
    Function("send_note", "Send a short note to somebody", "Send {person} a note about the {subject}.",
             {"person": "person", "subject": "thing"}, "urgent"),
    Function("find_price", "Price of a product", "What does a {product} cost in {city}?",
             {"product": "thing", "city": "place"}, "currency"),
    Function("convert_length", "Miles to kilometres", "How many kilometres are {miles} miles?", {"miles": "price"}),
    Function("plan_route", "Route between two places", "How do I get from {origin} to {destination}?",
             {"origin": "place", "destination": "place"}, "by"),
    Function("order_item", "Order a product for somebody", "Order {count} of the {item} for {recipient}.",
             {"item": "thing", "count": "number", "recipient": "person"}, "note"),
    Function("split_bill", "Share of a bill for each guest", "Split a bill of {total} among {guests} guests.",
             {"total": "price", "guests": "number"}, "tip"),
)  # fmt: skip
"""The optional parameter is a text that no request names, so the call may leave it out."""
CHATTER = (
    "Tell me about the {thing} that {person} painted.", "Why does {person} like {place} so much?",
    "Write a line that rhymes with {thing}.", "Who was the first to build a {thing}?",
)  # fmt: skip
"""Requests that none of the functions can serve."""


def run(job: Job) -> None:
    items = file_items(job, of_record) if "file" in job.inputs else _made(job.config)
    write_suite(job, items, Answering("tool_use", max_new_tokens=job.config.max_new_tokens))


def _made(config: ToolUseConfig) -> Iterator[Item]:
    counts = largest_remainder(dict.fromkeys(config.categories, 1.0), config.n)
    for category, count in counts.items():
        rng = random.Random(f"tool_use {category} {config.seed}")
        seen: set[str] = set()
        while len(seen) < count:
            item = _item(rng, category)
            text = item.messages[0]["content"]
            if text not in seen:
                seen.add(text)
                yield item


def _item(rng: random.Random, category: str) -> Item:
    offered, wanted = CALLS.get(category, (2, 1))
    functions = rng.sample(FUNCTIONS, offered)
    tools = tuple(map(_schema, functions))
    label = {"category": category}
    if category == "irrelevance":
        text = f"{_filled(rng, rng.choice(CHATTER))} I ask for the {_number(rng)}th time."
        return Item(asks(text), Check("call_rules", {"calls": []}), says("None of my tools can do that."), tools,
                    about=label)  # fmt: skip
    picked = [functions[0]] * wanted if offered == 1 else rng.sample(functions, wanted)
    drawn = [(function, _arguments(rng, function)) for function in picked]
    text = " ".join(function.asked.format(**arguments) for function, arguments in drawn)
    gold = called(*((function.name, arguments) for function, arguments in drawn))
    if category == "relevance":
        return Item(asks(f"Please help: {text}"), Check("any_call"), gold, tools, about=label)
    accepted = [_accepted(function, arguments) for function, arguments in drawn]
    return Item(asks(text), Check("call_rules", {"calls": accepted}), gold, tools, about=label)


def _accepted(function: Function, arguments: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, list[Any]] = {name: [value] for name, value in arguments.items()}
    return {"name": function.name, "arguments": {**options, **({function.optional: [""]} if function.optional else {})}}


def _schema(function: Function) -> Tool:
    properties: dict[str, Any] = {name: {"type": TYPES[kind]} for name, kind in function.parameters.items()}
    if function.optional:
        properties[function.optional] = {"type": "string"}
    parameters = {"type": "object", "properties": properties, "required": list(function.parameters)}
    described = {"name": function.name, "description": function.description, "parameters": parameters}
    return {"type": "function", "function": described}


def _number(rng: random.Random) -> int:
    return rng.randint(2, 97)


def _value(rng: random.Random, kind: str, taken: list[Any]) -> Any:
    if kind == "number":
        return _number(rng)
    if kind == "price":
        return rng.randint(20, 900) + 0.5
    pool = {"place": PLACES, "person": PEOPLE, "thing": THINGS}[kind]
    return rng.choice([value for value in pool if value not in taken])


def _arguments(rng: random.Random, function: Function) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, kind in function.parameters.items():
        drawn[name] = _value(rng, kind, list(drawn.values()))
    return drawn


def _filled(rng: random.Random, text: str) -> str:
    return text.format(place=rng.choice(PLACES), person=rng.choice(PEOPLE), thing=rng.choice(THINGS))


def of_record(record: Record) -> Item:
    """A BFCL record: `question` is a list of turns of which the first counts, `ground_truth` a list of
    `{function: {parameter: [accepted values]}}`."""
    question = reference(record, "question", "messages")
    turns = question[0] if isinstance(question[0], list) else question
    functions = reference(record, "function", "tools")
    tools = tools_of([_widened(function) for function in functions])
    category = str(record.get("category", "file"))
    if category == "relevance":
        check = Check("any_call")
    else:
        truth = [] if category == "irrelevance" else reference(record, "ground_truth")
        offered = {bare["name"]: bare for bare in (function.get("function", function) for function in functions)}
        check = Check("call_rules", {"calls": [_call(one, offered) for one in truth]})
    return Item(messages_of(turns, "question"), check, _gold(check), tools, about={"category": category})


def _widened(function: dict[str, Any]) -> dict[str, Any]:
    """BFCL writes `dict` and `float` where JSON schema says `object` and `number`, and functions without a wrapper."""
    bare = function.get("function", function)
    return {"type": "function", "function": {**bare, "parameters": _json_types(bare.get("parameters", {}))}}


def _json_types(schema: Any) -> Any:
    names = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
    if isinstance(schema, list):
        return [_json_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _json_types(value) for key, value in schema.items()}
    kind = changed.get("type")
    return {**changed, "type": names.get(kind, kind)} if isinstance(kind, str) else changed


def _call(truth: dict[str, Any], offered: dict[str, Any]) -> dict[str, Any]:
    """What is accepted of one call, with the function's parameters taken into account as BFCL's checker does: an
    integer among the values of a float stands for that float, what is required cannot be left out, and what is none of
    its parameters cannot be given."""
    ((name, arguments),) = truth.items()
    parameters = offered.get(name, {}).get("parameters", {})
    kinds = {key: value.get("type") for key, value in parameters.get("properties", {}).items()}
    accepted = {}
    for key, values in arguments.items():
        if kinds and key not in kinds:
            continue
        if kinds.get(key) == "float":
            values = [float(value) if type(value) is int else value for value in values]
        needed = [value for value in values if value != ""]
        accepted[key] = needed if key in parameters.get("required", ()) and needed else values
    return {"name": name, "arguments": accepted}


def _gold(check: Check) -> dict[str, Any]:
    """The first accepted value of each parameter that is needed."""
    if check.name == "any_call":
        return called(("any", {}))
    if not check.args["calls"]:
        return says("No tool fits.")
    chosen = [
        (call["name"], {name: _first(values) for name, values in call["arguments"].items() if "" not in values})
        for call in check.args["calls"]
    ]
    return called(*chosen)


def _first(values: list[Any]) -> Any:
    value = values[0]
    if isinstance(value, dict):
        return {key: _first(inner) for key, inner in value.items() if "" not in inner}
    return value
