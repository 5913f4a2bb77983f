"""Zero-shot function calling (P 4.3.5): functions of real source code, called for real.

A call is made first, with arguments that stand in the source or that the teacher makes up, and what fails is dropped.
Then the teacher writes the request for it, and answers that request with the tools at hand: its calls must be the ones
that were wanted. Negatives offer tools that are not needed, leave out the one that is, or offer none.
"""

from dataclasses import replace
from random import Random

from posttrain.checks.calls import functions_of
from posttrain.data.rows import Check, flagged
from posttrain.data.shares import largest_remainder
from synth.operators import Item, Work, ask, different, in_language, judge, sift, user
from synth.pipelines.functions_spec import OVER_ASK, STDLIB, FunctionsConfig, Kind
from synth.tools.library import Library, executed, nested
from synth.tools.mining import Mined, mine
from synth.tools.plans import (
    NEGATIVES,
    accepted,
    calls_of,
    definitions,
    described,
    names_a_tool,
    off_plan,
    said,
    unsaid,
    within,
)
from synth.tools.subjects import SUBJECTS
from synth.tools.talking import contest, speak, told

WITH_CALLS: tuple[Kind, ...] = ("simple", "parallel", "nested", "missing", "inactive")
MOST_PARALLEL = 3
NO_TURNS = "(nothing yet)"


def make(work: Work) -> None:
    """Calls that work → requests for them → dialogs → checks → pairs."""
    config: FunctionsConfig = work.config
    library = Library(mine(STDLIB if config.tree == STDLIB else str(work.input("tree"))))
    for number, wanted in work.passes():
        parts = largest_remainder(dict(config.kinds), int(OVER_ASK * wanted) + 1)
        items = requests(work, library, number, parts)
        items = [one for item in items if (one := offered(work, library, item))]
        items = speak(work, items, library.of_name, config.most_calls, simulate=False)
        items = sift(work, items, off_plan, "calls")
        items = sift(work, items, unsaid, "result in the answer")
        items += talks(work, library, number, parts.get("turns", 0))
        if config.least:
            items = judge(work, items, lambda item: work.prompt(item, item["messages"][:-1], item["tools"]), "message",
                          least=config.least)  # fmt: skip
        pairs = contest(work, items, config.pairs, config.rival_temperature)
        for item in items:
            item = replace(item, made_by={**item.made_by, "kind": item["kind"]})
            prompt = work.prompt(item, item["messages"][:1], item["tools"], item["checks"].get(1))
            row = work.row(item, [*flagged(item["messages"][:-1]), item["messages"][-1]], item["tools"], (prompt.id,))
            work.keep(item, prompt if config.sampled else None, [row], [pairs[item.id]] if item.id in pairs else [])


def requests(work: Work, library: Library, number: int, parts: dict[Kind, int]) -> list[Item]:
    """Items with `kind`, `wanted` (the calls) and `text`, the request for them."""
    rng = work.rng("targets", number)
    singles = executed(work, library, number, sum(parts.get(kind, 0) for kind in WITH_CALLS))
    rng.shuffle(singles)
    items = []
    for place in range(parts.get("parallel", 0) if len(singles) > 1 else 0):
        taken = rng.sample(singles, rng.randint(2, min(MOST_PARALLEL, len(singles))))
        item = work.item({"number": [number, place], "calls": [one["calls"][0] for one in taken]})
        items.append(item.plus(kind="parallel", wanted=item["calls"], said=[said(call) for call in item["calls"]]))
    for kind in ("nested", "simple", "missing", "inactive"):
        taken = [singles.pop() for _ in range(min(parts.get(kind, 0), len(singles)))]
        if kind == "nested":
            both = nested(work, library, number, taken)
            items += [one.plus(kind=kind, said=[within(one["wanted"], one["slot"])]) for one in both]
        else:
            items += [one.plus(kind=kind, wanted=one["calls"], said=[said(one["calls"][0])]) for one in taken]
    items = [item.plus(**described(library, item["wanted"], item["said"])) for item in items]
    items = ask(work, items, "functions/query", into="text", draws=f"queries-{number}")
    items += unneeded(work, library, number, parts.get("unneeded", 0))
    items = sift(work, items, names_a_tool, "request", "text")
    items = in_language(work, items, "text")
    return different(work, items, "text", work.known_texts(), work.config.like)


def settled(work: Work, library: Library, rng: Random, number: list[int], least: int) -> tuple[Item, list[Mined]]:
    """An item on a subject with related tools, `least` and as many more as there are distractors; and these tools."""
    tools, subject = library.related(rng, least + work.config.distractors), rng.choice(SUBJECTS)
    item = work.item({"number": number, "of": [tool.origin for tool in tools], "subject": subject})
    return item.plus(wanted=[], definitions=definitions(tools)), tools


def unneeded(work: Work, library: Library, number: int, count: int) -> list[Item]:
    """Requests that none of some tools is of use for."""
    rng = work.rng("unneeded", number)
    drawn = [settled(work, library, rng, [number, place], 1) for place in range(count)]
    items = [item.plus(kind="unneeded", group=tools) for item, tools in drawn]
    return ask(work, items, "functions/other_query", into="text", draws=f"queries-{number}")


def offered(work: Work, library: Library, item: Item) -> Item | None:
    """The item with the tools that its dialog offers, its first message, and what its messages are checked by."""
    rng, needed = work.rng("offered", item.id), [library.of_name[name] for name in calls_of(item)]
    tools = item["group"] if item["kind"] == "unneeded" else []
    if item["kind"] == "missing":
        tools = library.beside(rng, needed, max(1, work.config.distractors))
    elif needed and item["kind"] != "inactive":
        tools = [*needed, *library.beside(rng, needed, rng.randint(0, work.config.distractors))]
        rng.shuffle(tools)
    if item["kind"] in NEGATIVES:
        checks = {1: Check("call_rules", {"calls": []})}
    elif item["kind"] == "nested":
        checks = {1: accepted(library, item["wanted"][:1]), 3: accepted(library, item["wanted"][1:])}
    else:
        checks = {1: accepted(library, item["wanted"])}
    return item.plus(tools=[tool.tool for tool in tools], messages=[user(item["text"])], checks=checks)


def talks(work: Work, library: Library, number: int, count: int) -> list[Item]:
    """Dialogs of several turns: the teacher plays the user and stands in for methods that cannot be run."""
    rng = work.rng("talks", number)
    items = []
    for place in range(count):
        item, tools = settled(work, library, rng, [number, place], 2)
        items.append(item.plus(kind="turns", tools=[tool.tool for tool in tools], messages=[], checks={},
                               turns=rng.randint(2, work.config.turns)))  # fmt: skip
    done: list[Item] = []
    for turn in range(1, work.config.turns + 1):
        items = [item.plus(conversation=told(item["messages"]) or NO_TURNS) for item in items]
        items = ask(work, items, "functions/user_turn", into="text", draws=f"turns-{number}-{turn}")
        items = sift(work, items, names_a_tool, "request", "text")
        items = in_language(work, items, "text")
        items = [item.plus(messages=[*item["messages"], user(item["text"])]) for item in items]
        items = speak(work, items, library.of_name, work.config.most_calls, simulate=True)
        done += [item for item in items if item["turns"] == turn]
        items = [item for item in items if item["turns"] > turn]
    return sift(work, done, lambda item: "" if any(map(functions_of, item["messages"])) else "no call", "turns")
