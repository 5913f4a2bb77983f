"""Tool use over several turns: the calls are run on a small office (`eval.desk`), the results go back to the model, and
what counts is how the office stands in the end and what was looked up on the way.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from eval.desk import FUNCTIONS, State, run_call, tools
from eval.suites.dialogs_spec import DialogsConfig
from eval.suites.making import Answering, Item, asks, called, says, write_suite
from posttrain.checks.tools import result_text
from posttrain.data.rows import Check, Message
from posttrain.stages import Job

ACCOUNTS = ("checking", "savings", "holiday", "rent")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
TITLES = ("dentist", "review", "lunch", "training", "call")
BOXES = ("red", "blue", "green")
ITEMS = ("key", "map", "rope", "torch", "book", "cup")
Turn = dict[str, Any]


def run(job: Job) -> None:
    answering = Answering("dialogs", by="dialog", max_new_tokens=job.config.max_new_tokens)
    write_suite(job, made_items(job.config), answering)


def made_items(config: DialogsConfig) -> Iterator[Item]:
    rng, seen = random.Random(f"dialogs {config.seed}"), set[str]()
    while len(seen) < config.n:
        start = _state(rng)
        turns = _turns(rng, start, config.turns)
        key = json.dumps([start, turns], sort_keys=True)
        if key not in seen:
            seen.add(key)
            # The state is no part of the prompt, so two dialogs may begin alike: a number tells them apart.
            opening = {**turns[0], "user": f"Request {len(seen)}. {turns[0]['user']}"}
            yield _item(start, [opening, *turns[1:]])


def _item(start: dict[str, Any], turns: list[Turn]) -> Item:
    check = Check("dialog", {"state": start, "turns": turns})
    gold = says(json.dumps(_played(start, turns)))
    return Item(asks(turns[0]["user"]), check, gold, tools(tuple(FUNCTIONS)), about={"category": "multi_turn"})


def _played(start: dict[str, Any], turns: list[Turn]) -> list[Message]:
    """The transcript of one who makes the wanted calls."""
    state, messages = State(start), list[Message]()
    for turn in turns:
        messages += asks(turn["user"])
        for call in turn["calls"]:
            result = run_call(state, call["name"], call["arguments"])
            messages += [called((call["name"], call["arguments"])), {"role": "tool", "content": result_text(result)}]
        messages.append(says("Done."))
    return messages


def _state(rng: random.Random) -> dict[str, Any]:
    items = rng.sample(ITEMS, len(ITEMS))
    return {
        "accounts": {name: 10 * rng.randint(10, 90) for name in ACCOUNTS},
        "calendar": {day: [rng.choice(TITLES)] for day in DAYS},
        "boxes": {box: sorted(items[2 * i : 2 * i + 2]) for i, box in enumerate(BOXES)},
    }


def _turns(rng: random.Random, start: dict[str, Any], count: int) -> list[Turn]:
    """Turns that can be done one after the other, each drawn on the state that the ones before have left."""
    state, turns = State(start), list[Turn]()
    for _ in range(count):
        text, calls = rng.choice(TASKS)(rng, state.data)
        turns.append({"user": text, "calls": [{"name": name, "arguments": given} for name, given in calls]})
        for name, given in calls:
            result = run_call(state, name, given)
            assert "error" not in result, result
    return turns


Drawn = tuple[str, list[tuple[str, dict[str, Any]]]]


def _half(rng: random.Random, data: dict[str, Any]) -> Drawn:
    source, target = rng.sample(ACCOUNTS, 2)
    held = data["accounts"][source]
    look = ("get_balance", {"account": source})
    move = ("transfer", {"source": source, "target": target, "amount": held // 2})
    text = f"Look up the {source} account and move half of it, rounded down, to {target}."
    return (text, [look, move]) if held >= 2 else (f"How much is in {source}?", [look])


def _pay(rng: random.Random, data: dict[str, Any]) -> Drawn:
    source = max(ACCOUNTS, key=lambda name: data["accounts"][name])
    target = rng.choice([name for name in ACCOUNTS if name != source])
    amount = rng.randint(1, 9)
    move = ("transfer", {"source": source, "target": target, "amount": amount})
    return f"Move {amount} from {source} to {target}.", [move]


def _postpone(rng: random.Random, data: dict[str, Any]) -> Drawn:
    day = rng.choice([day for day in DAYS if data["calendar"].get(day)])
    title, later = rng.choice(data["calendar"][day]), rng.choice([other for other in DAYS if other != day])
    cancel, add = ("cancel_event", {"day": day, "title": title}), ("add_event", {"day": later, "title": title})
    return f"Move the {title} on {day} to {later}.", [cancel, add]


def _planned(rng: random.Random, data: dict[str, Any]) -> Drawn:
    day = rng.choice(DAYS)
    return f"What is planned on {day}?", [("list_events", {"day": day})]


def _carry(rng: random.Random, data: dict[str, Any]) -> Drawn:
    source = rng.choice([box for box in BOXES if data["boxes"][box]])
    target = rng.choice([box for box in BOXES if box != source])
    item = rng.choice(data["boxes"][source])
    move = ("move_item", {"item": item, "source": source, "target": target})
    return f"Put the {item} from the {source} box into the {target} one, then tell me what is in {target}.", [
        move, ("list_items", {"box": target}),
    ]  # fmt: skip


TASKS: tuple[Callable[[random.Random, dict[str, Any]], Drawn], ...] = (_half, _pay, _postpone, _planned, _carry)
