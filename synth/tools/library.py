"""Mined functions at hand: drawn evenly over modules, offered with others, and called for real."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from posttrain.data.rows import content_id
from synth.operators import Item, Unreadable, Work, as_json, ask, parse, sift
from synth.pipelines.functions_spec import ARGUMENTS_EACH
from synth.tools.mining import Mined
from synth.tools.running import made

RESULT = "$result"
"""Stands for the result of the first call among the second one's arguments."""


class Library:
    """Tools by name; where two have one name, the one whose calls are known, else the first by its dotted name."""

    def __init__(self, found: Sequence[Mined]):
        ordered = sorted(found, key=lambda one: (not one.calls, not one.runs, one.origin))
        self.of_name: dict[str, Mined] = {}
        for one in ordered:
            self.of_name.setdefault(one.name, one)
        self.all = sorted(self.of_name.values(), key=lambda one: one.origin)
        self.runnable = [one for one in self.all if one.runs and one.tool["function"]["parameters"]["properties"]]
        self.of_module: dict[str, list[Mined]] = {}
        for one in self.all:
            self.of_module.setdefault(one.module, []).append(one)

    def draw(self, rng: Random, count: int) -> list[Mined]:
        """`count` different tools that can be run, those with known calls first; fewer where there are no more."""
        shuffled = rng.sample(self.runnable, len(self.runnable))
        return sorted(shuffled, key=lambda one: not one.calls)[:count]

    def related(self, rng: Random, count: int) -> list[Mined]:
        """`count` tools, as many as there are from one module."""
        module = self.of_module[rng.choice(sorted(self.of_module))]
        own = rng.sample(module, min(count, len(module)))
        return [*own, *self.beside(rng, own, count - len(own))]

    def beside(self, rng: Random, needed: Sequence[Mined], count: int) -> list[Mined]:
        """`count` other tools, half of them of the same modules where they have more, which are the easiest to mix up
        with the needed ones."""
        names, modules = {one.name for one in needed}, {one.module for one in needed}
        near = [one for module in sorted(modules) for one in self.of_module[module] if one.name not in names]
        close = rng.sample(near, min(len(near), (count + 1) // 2))
        names |= {one.name for one in close}
        rest = [one for one in rng.sample(self.all, min(len(self.all), count + len(names))) if one.name not in names]
        return [*close, *rest[: count - len(close)]]


def executed(work: Work, library: Library, number: int, count: int) -> list[Item]:
    """About `count` items of one call each, `calls`, that was made and gave `values`.

    Arguments stand in the tree, or else the teacher makes them up.
    """
    rng, items, lacking = work.rng("calls", number), [], []
    for tool in library.draw(rng, count) if count else []:
        item = work.item({"number": number, "tool": tool.origin}).plus(definition=_definition(tool))
        if tool.calls:
            chosen = rng.sample(tool.calls, min(ARGUMENTS_EACH, len(tool.calls)))
            items += item.split("arguments", chosen)
        else:
            lacking.append(item.plus(count=ARGUMENTS_EACH))
        if len(items) + ARGUMENTS_EACH * len(lacking) >= count:
            break
    written = ask(work, lacking, "functions/arguments", into="text")
    written = parse(work, written, as_json(list[dict[str, Any]]), of="text", into="sets", step="arguments: JSON")
    items += [one for item in written for one in item.split("arguments", item["sets"])]
    names = {tool.origin: tool.name for tool in library.all}
    items = [item.plus(calls=[{"name": names[item["tool"]], "arguments": item["arguments"]}]) for item in items]
    return made(work, _once(work, items), library.of_name, of="calls", into="values", step="execute")


def _once(work: Work, items: Sequence[Item]) -> list[Item]:
    seen: set[str] = set()

    def test(item: Item) -> str:
        key = content_id(item["calls"])
        again = key in seen
        seen.add(key)
        return "same call twice" if again else ""

    return sift(work, items, test, "arguments")


def nested(work: Work, library: Library, number: int, singles: Sequence[Item]) -> list[Item]:
    """Items of two calls, `wanted`: one that was made, and one that takes its result as the argument `slot`."""
    rng, items = work.rng("nested", number), []
    for single in singles:
        first = library.of_name[single["calls"][0]["name"]]
        near = [one for one in library.of_module[first.module] if one in library.runnable and one is not first]
        second = rng.choice(near or [one for one in library.runnable if one is not first] or [first])
        if second is not first:
            said = {"call": json.dumps(single["calls"][0]), "result": json.dumps(single["values"][0])}
            items.append(single.plus(second=second.name, definition=_definition(second), **said))
    items = ask(work, items, "functions/nested", into="text")
    items = parse(work, items, _with_slot, of="text", into="slotted", step="nested: JSON")
    whole = []
    for item in items:
        arguments, slot = item["slotted"]
        outer = {"name": item["second"], "arguments": {**arguments, slot: item["values"][0]}}
        whole.append(item.plus(wanted=[item["calls"][0], outer], outer=[outer], slot=slot))
    return made(work, whole, library.of_name, of="outer", into="values", step="execute nested")


def _with_slot(text: str) -> tuple[dict[str, Any], str]:
    """Arguments, and the name of the one that is RESULT."""
    arguments = as_json(dict[str, Any])(text)
    slots = [name for name, value in arguments.items() if value == RESULT]
    if len(slots) != 1:
        raise Unreadable("no place for the result")
    return arguments, slots[0]


def _definition(tool: Mined) -> str:
    return json.dumps(tool.tool["function"], ensure_ascii=False)
