"""Tool use: eight groups of three alike functions, called once, twice in parallel, or answered from a result."""

import json
import random
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import Check, Message, Prompt, Tool
from synth.world.base import Spec, calls, one_of, says, user
from synth.world.words import CITIES, CURRENCIES, DAYS, NAMES, ROOMS, UNITS, WORDS

CAPABILITY = "tool_use"

KINDS: dict[str, Any] = {
    "city": CITIES,
    "name": NAMES,
    "day": DAYS,
    "word": WORDS,
    "room": ROOMS,
    "unit": UNITS,
    "currency": CURRENCIES,
    "number": list(range(2, 100)),
}


RETURNED = "It is {result}"
"""What a function gives back."""


@dataclass(frozen=True)
class Group:
    """Functions that differ by their noun only. `optional` is a parameter that a query may leave out."""

    verb: str
    nouns: tuple[str, ...]
    parameters: dict[str, str]
    queries: tuple[str, ...]
    answer: str
    optional: str = ""
    suffix: str = ""


GROUPS = (
    Group("get", ("weather", "humidity", "wind"), {"city": "city", "day": "day", "unit": "unit"},
          ("What is the {noun} in {city} on {day}?", "Tell me the {noun} in {city} on {day}.",
           "Please look up the {noun} for {city} on {day}."),
          "The {noun} in {city} on {day} is {result}.", "unit", "Use {unit}."),
    Group("book", ("hotel", "flight", "train"), {"city": "city", "people": "number", "day": "day"},
          ("Book a {noun} in {city} for {people} people.", "I need a {noun} in {city} for {people} people.",
           "Please reserve a {noun} in {city} for {people}."),
          "The {noun} in {city} for {people} people is {result}.", "day", "Make it {day}."),
    Group("send", ("email", "letter", "parcel"), {"name": "name", "about": "word", "day": "day"},
          ("Send {name} the {noun} about {about}.", "Please send a {noun} to {name} about {about}.",
           "{name} should get a {noun} about {about}."),
          "The {noun} to {name} about {about} is {result}.", "day", "Send it {day}."),
    Group("add", ("meeting", "lunch", "interview"), {"name": "name", "day": "day", "city": "city"},
          ("Add a {noun} with {name} on {day}.", "Plan a {noun} with {name} for {day}.",
           "On {day} I have a {noun} with {name}."),
          "The {noun} with {name} on {day} is {result}.", "city", "It is in {city}."),
    Group("set", ("light", "heating", "volume"), {"room": "room", "value": "number", "day": "day"},
          ("Set the {noun} in the {room} to {value}.", "Turn the {noun} of the {room} to {value}.",
           "In the {room} I want the {noun} at {value}."),
          "The {noun} in the {room} at {value} is {result}.", "day", "Do it {day}."),
    Group("find", ("book", "song", "film"), {"name": "name", "topic": "word", "city": "city"},
          ("Find a {noun} by {name} about {topic}.", "Which {noun} by {name} is about {topic}?",
           "I look for a {noun} of {name} on {topic}."),
          "The {noun} by {name} about {topic} is {result}.", "city", "Search in {city}."),
    Group("order", ("pizza", "salad", "soup"), {"count": "number", "name": "name", "city": "city"},
          ("Order {count} {noun} for {name}.", "Please order {count} portions of {noun} for {name}.",
           "{name} wants {count} {noun}."),
          "The {count} {noun} for {name} is {result}.", "city", "Deliver to {city}."),
    Group("convert", ("money", "price", "salary"), {"amount": "number", "source": "currency", "target": "currency"},
          ("Convert a {noun} of {amount} {source} to {target}.",
           "How much is a {noun} of {amount} {source} in {target}?",
           "Change the {noun} of {amount} {source} into {target}."),
          "The {noun} of {amount} {source} in {target} is {result}."),
)  # fmt: skip

FUNCTIONS: dict[str, tuple[Group, str]] = {f"{g.verb}_{noun}": (g, noun) for g in GROUPS for noun in g.nouns}


def schema(name: str) -> Tool:
    """The function's compact JSON schema in OpenAI form."""
    group, noun = FUNCTIONS[name]
    properties: dict[str, Any] = {}
    for parameter, kind in group.parameters.items():
        properties[parameter] = {"type": "integer" if kind == "number" else "string"}
        if kind == "unit":
            properties[parameter]["enum"] = list(UNITS)
    required = [parameter for parameter in group.parameters if parameter != group.optional]
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{group.verb} {noun}",
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }


def draw(rng: random.Random, level: int = 1, tools: list[str] | None = None, kind: str | None = None) -> Spec:
    """One task. Level 1 has one or two functions of any group; level 2 three alike ones and optional parameters."""
    kind = kind or one_of(rng, ("call", 0.5), ("parallel", 0.25), ("result", 0.25))
    tools = tools or _tools(rng, level)
    picked = [rng.choice(tools) for _ in range(2 if kind == "parallel" else 1)]
    made = [{"name": name, "arguments": _arguments(rng, name, level)} for name in picked]
    while len(made) == 2 and made[0] == made[1]:
        made[1] = {"name": picked[1], "arguments": _arguments(rng, picked[1], level)}
    spec: Spec = {"capability": CAPABILITY, "kind": kind, "level": level, "tools": tools, "calls": made}
    return {**spec, "result": rng.choice(WORDS)} if kind == "result" else spec


def _tools(rng: random.Random, level: int) -> list[str]:
    if level == 1:
        return rng.sample(list(FUNCTIONS), rng.choice((1, 2)))
    group = rng.choice(GROUPS)
    return [f"{group.verb}_{noun}" for noun in rng.sample(group.nouns, 3)]


def _arguments(rng: random.Random, name: str, level: int) -> dict[str, Any]:
    group, _ = FUNCTIONS[name]
    with_optional = level == 2 and rng.random() < 0.5
    chosen: dict[str, Any] = {}
    for parameter, kind in group.parameters.items():
        if parameter != group.optional or with_optional:
            chosen[parameter] = rng.choice([value for value in KINDS[kind] if value not in chosen.values()])
    return chosen


def state(spec: Spec, rng: random.Random) -> str:
    return " ".join(_query(call, rng) for call in spec["calls"])


def _query(call: dict[str, Any], rng: random.Random) -> str:
    group, noun = FUNCTIONS[call["name"]]
    text = rng.choice(group.queries).format(noun=noun, **call["arguments"])
    return f"{text} {group.suffix.format(**call['arguments'])}" if group.optional in call["arguments"] else text


def build(spec: Spec, text: str) -> Prompt:
    """The user's text with the spec's functions; for `result` also the call and what came back."""
    messages: tuple[Message, ...] = (user(text),)
    if spec["kind"] == "result":
        messages += (calls(*spec["calls"]), {"role": "tool", "content": RETURNED.format(result=spec["result"])})
        check = Check("exact", {"answers": [gold(spec)["content"]]})
    else:
        check = Check("tool_calls", {"calls": spec["calls"]})
    return Prompt(messages, CAPABILITY, tools=tuple(schema(name) for name in spec["tools"]), check=check)


def gold(spec: Spec) -> Message:
    if spec["kind"] != "result":
        return calls(*spec["calls"])
    call = spec["calls"][0]
    group, noun = FUNCTIONS[call["name"]]
    return says(group.answer.format(noun=noun, result=spec["result"], **call["arguments"]))


def faithful(spec: Spec, text: str) -> bool:
    """Every call's noun and argument values stand in the text, in the calls' order, and no other function's noun."""
    words = _tokens(text)
    wanted = [word for call in spec["calls"] for word in _values(call)]
    nouns = {FUNCTIONS[call["name"]][1] for call in spec["calls"]}
    others = {noun for _, noun in FUNCTIONS.values()} - nouns
    return all(words.count(word) >= wanted.count(word) for word in wanted) and not others & set(words)


def _values(call: dict[str, Any]) -> list[str]:
    return [FUNCTIONS[call["name"]][1], *(str(value) for value in call["arguments"].values())]


def _tokens(text: str) -> list[str]:
    return [word.strip(".,?!\"'") for word in text.split()]


def operator(spec: Spec) -> dict[str, Any]:
    """Variables of the operator prompt `tool_use/new_prompt`."""
    made = [{"name": call["name"], "parameters": call["arguments"]} for call in spec["calls"]]
    return {"calls": json.dumps(made[0] if len(made) == 1 else made)}
