"""Case by case against BFCL's own checker (`bfcl-eval`): dialogs whose tools are run, and whether a text has a call.

    python benchmarks/bfcl_dialogs_agreement.py --peer /path/to/python-with-bfcl-eval --write

Multi-turn: the suite `dialogs` makes dialogs on its small office; its wanted calls, and calls with something changed,
are judged here and by `multi_turn_checker`, which runs them on the same office, given to it as one of its classes.
Relevance and irrelevance: texts that are calls, nearly or not at all, read here and by their handler of Llama 3.1.
"""

import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import bfcl_agreement as bfcl
import harness

TURNS, EACH, SHOWN = 3, 5, 3
"""Turns of a dialog; changes that each dialog is judged with; differences of one kind that are shown."""
Call = dict[str, Any]
Turns = list[list[Call]]
"""The calls of each turn."""
Change = Callable[[random.Random, Turns], None]


def main() -> None:
    arguments = harness.parser(__doc__ or "", dialogs=400, texts=60)
    arguments.add_argument("--peer", help="a Python that has bfcl-eval")
    arguments.add_argument("--step", choices=["calls", "verdicts"], help="what the peer's process is asked for")
    given = arguments.parse_args()
    if given.step == "calls":
        records = bfcl.their_records(given.texts)
        print(json.dumps({"version": version("bfcl-eval"), "calls": [bfcl.answers(record) for record in records]}))
    elif given.step == "verdicts":
        cases = json.load(sys.stdin)
        print(json.dumps([[their_dialog(one) for one in cases["dialogs"]], [their_calls(t) for t in cases["texts"]]]))
    else:
        peer_version, lines = compare(given.peer or sys.executable, given)
        del sys.argv[1:]  # where the peer lies is nobody's business
        harness.report("Dialogs and texts with calls against BFCL's checker", lines, given, f"bfcl-eval {peer_version}")


def peer(python: str, given: Any, step: str, cases: Any = None) -> Any:
    return bfcl.in_peer(python, __file__, ["--step", step, "--texts", str(given.texts)], cases)


def compare(python: str, given: Any) -> tuple[str, list[str]]:
    """The checker's version, and the result."""
    theirs = peer(python, given, "calls")
    dialogs = list(dialog_cases(given.dialogs, given.seed))
    texts = [(kind, text) for calls in theirs["calls"] for kind, text in texts_of(calls)]
    cases: dict[str, list[Any]] = {"dialogs": dialogs, "texts": [text for _, text in texts]}
    found_dialogs, found_texts = peer(python, given, "verdicts", cases)
    ours = [our_dialog(case) for case in dialogs]
    lines = ["## Multi-turn", "", *summed([case["change"] for case in dialogs], found_dialogs, ours, dialogs)]
    read = [our_calls(text) for _, text in texts]
    lines += ["", "## Relevance and irrelevance: whether a text has a call", ""]
    return theirs["version"], lines + summed([kind for kind, _ in texts], found_texts, read, cases["texts"])


def summed(
    kinds: Sequence[str], theirs: Sequence[bool], ours: Sequence[tuple[bool, str]], cases: Sequence[Any]
) -> list[str]:
    """How many cases agree, by kind, and some of those that do not."""
    totals, right, agree, shown = Counter(kinds), Counter[str](), Counter[str](), list[str]()
    differ = Counter[str]()
    for kind, peer_says, (own, reason), case in zip(kinds, theirs, ours, cases, strict=True):
        right[kind] += peer_says
        agree[kind] += peer_says == own
        differ[kind] += peer_says != own
        if peer_says != own and differ[kind] <= SHOWN:
            text = json.dumps(case["turns"] if isinstance(case, dict) else case, ensure_ascii=False)[:260]
            shown.append(f"| {kind} | `{text.replace('|', '¦')}` | {peer_says} | {own} ({reason}) |")
    rows = [[kind, f"{n:,}", f"{right[kind]:,}", f"{agree[kind]:,}"] for kind, n in sorted(totals.items())]
    listed = ["", "| kind | case | bfcl-eval | here |", "|---|---|---|---|", *shown] if shown else []
    head = f"{totals.total():,} cases: {agree.total():,} agree."
    return [head, "", *harness.markdown(["kind", "cases", "yes by bfcl-eval", "agree"], rows), *listed]


# Dialogs


def dialog_cases(count: int, seed: int) -> Iterator[dict[str, Any]]:
    from eval.suites.dialogs import made_items
    from eval.suites.dialogs_spec import DialogsConfig

    rng = random.Random(seed)
    for item in made_items(DialogsConfig(n=count, turns=TURNS, seed=seed)):
        check = item.check.args
        wanted = [turn["calls"] for turn in check["turns"]]
        for change in ["none", *rng.sample(sorted(CHANGES), EACH)]:
            turns = copy.deepcopy(wanted)
            if change != "none":
                CHANGES[change](rng, turns)
            yield {"check": check, "turns": turns, "change": change}


def pick(rng: random.Random, turns: Turns) -> list[Call]:
    return rng.choice([calls for calls in turns if calls] or turns)


def left_out(rng: random.Random, turns: Turns) -> None:
    calls = pick(rng, turns)
    del calls[rng.randrange(len(calls))]


def doubled(rng: random.Random, turns: Turns) -> None:
    calls = pick(rng, turns)
    calls.append(copy.deepcopy(rng.choice(calls)))


def other_order(rng: random.Random, turns: Turns) -> None:
    rng.shuffle(pick(rng, turns))


def other_value(rng: random.Random, turns: Turns) -> None:
    given = rng.choice(pick(rng, turns))["arguments"]
    name = rng.choice(sorted(given))
    given[name] = given[name] + 1 if isinstance(given[name], int) else given[name] + "x"


def other_name(rng: random.Random, turns: Turns) -> None:
    rng.choice(pick(rng, turns))["name"] = "do_it"


def parameter_left_out(rng: random.Random, turns: Turns) -> None:
    given = rng.choice(pick(rng, turns))["arguments"]
    del given[rng.choice(sorted(given))]


def look_around(rng: random.Random, turns: Turns) -> None:
    look = {"name": "list_events", "arguments": {"day": rng.choice(["Monday", "Friday"])}}
    calls = rng.choice(turns)
    calls.insert(rng.randint(0, len(calls)), look)


def a_turn_early(rng: random.Random, turns: Turns) -> None:
    """The first call of a turn is made in the one before."""
    number = rng.randrange(1, len(turns))
    turns[number - 1].append(turns[number].pop(0))


def all_at_first(rng: random.Random, turns: Turns) -> None:
    turns[0] += [call for calls in turns[1:] for call in calls]
    turns[1:] = [[] for _ in turns[1:]]


def there_and_back(rng: random.Random, turns: Turns) -> None:
    """Something planned is taken out and planned again, so that it may stand elsewhere in its day."""
    calls = pick(rng, turns)
    event = {"day": "Monday", "title": "errand"}
    calls += [{"name": name, "arguments": event} for name in ("add_event", "cancel_event")]


CHANGES: dict[str, Change] = {
    "call left out": left_out, "call doubled": doubled, "order in a turn": other_order, "value": other_value,
    "name": other_name, "parameter left out": parameter_left_out, "a look around": look_around,
    "call a turn early": a_turn_early, "all in the first turn": all_at_first, "there and back": there_and_back,
}  # fmt: skip


def our_dialog(case: dict[str, Any]) -> tuple[bool, str]:
    from eval.scorers import SCORERS
    from eval.suites.making import asks, called, says
    from posttrain.checks.verifiers import grade
    from posttrain.data.rows import Check

    said: list[Any] = []
    for turn, calls in zip(case["check"]["turns"], case["turns"], strict=True):
        said += [*asks(turn["user"]), *(called((one["name"], one["arguments"])) for one in calls), says("Done.")]
    verdict = grade(Check("dialog", case["check"]), says(json.dumps(said)), SCORERS)
    return verdict.value == 1.0, verdict.reason


def their_dialog(case: dict[str, Any]) -> bool:
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    CLASS_FILE_PATH_MAPPING["Desk"] = __name__
    made = [[[written(call)] for call in calls] for calls in case["turns"]]
    wanted = [[written(call) for call in turn["calls"]] for turn in case["check"]["turns"]]
    desk = {"initial_config": {"Desk": case["check"]["state"]}, "involved_classes": ["Desk"]}
    entry = {"id": f"desk{id(case)}_0", **desk}  # instances are kept by id
    return bool(multi_turn_checker(made, wanted, entry, "multi_turn_base", "model")["valid"])


def written(call: Call) -> str:
    """A call as Python, which their handlers make of every answer."""
    return f"{call['name']}({', '.join(f'{name}={value!r}' for name, value in call['arguments'].items())})"


class Desk:
    """The office as their executor wants a class: methods to be called, attributes that are its state."""

    def _load_scenario(self, state: dict[str, Any], long_context: bool = False) -> None:
        from eval.desk import State

        self._state = State(state)
        vars(self).update(self._state.data)


def method(name: str) -> Callable[..., dict[str, Any]]:
    def run(self: Desk, **given: Any) -> dict[str, Any]:
        from eval.desk import run_call

        return run_call(self._state, name, given)

    return run


for own in ("get_balance", "transfer", "list_events", "add_event", "cancel_event", "list_items", "move_item"):
    setattr(Desk, own, method(own))


# Texts


def texts_of(calls: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """A record's calls as Llama 3.1 may write them, and texts that only look like it; each with its kind."""
    objects = [{"name": name, "parameters": given} for call in calls for name, given in call.items()]
    one, listed = json.dumps(objects[0]), json.dumps(objects)
    yield "one call" if len(objects) == 1 else "several calls", one if len(objects) == 1 else listed
    yield "call with `type`", json.dumps({"type": "function", **objects[0]})
    yield "call after the tag", f"<|python_tag|>{one}"
    yield "list of one call", f"[{one}]"
    yield "calls with `;` between", f"{one}; {one}"
    yield "words before a call", f"I call this: {one}"
    yield "words after a call", f"{one} is what I call."
    yield "call cut off", one[:-3]
    yield "call with another key", json.dumps({**objects[0], "why": "asked"})
    yield "`arguments` for `parameters`", json.dumps({"name": objects[0]["name"], "arguments": {}})
    yield "parameters no object", json.dumps({"name": objects[0]["name"], "parameters": "x"})
    yield "Python call", f"{objects[0]['name']}(x=1)"
    yield "words alone", f"None of these can do that; {objects[0]['name']} is for something else."
    yield "no call in a list", "[]"
    yield "empty", ""


def our_calls(text: str) -> tuple[bool, str]:
    from eval.scorers import SCORERS
    from posttrain.chat.parse import parse
    from posttrain.checks.verifiers import grade
    from posttrain.data.rows import Check

    found = parse(text)
    relevant = grade(Check("any_call", {}), found.message, SCORERS).value == 1.0
    assert relevant != (grade(Check("call_rules", {"calls": []}), found.message, SCORERS).value == 1.0)
    return relevant, found.error.reason if found.error else "a call" if relevant else "no call"


def their_calls(text: str) -> bool:
    from bfcl_eval.model_handler.local_inference.llama_3_1 import LlamaHandler_3_1
    from bfcl_eval.utils import is_empty_output

    try:
        return not is_empty_output(LlamaHandler_3_1.decode_ast(None, text, None, False))
    except Exception:  # as their runner takes whatever their reader raises
        return False


if __name__ == "__main__":
    main()
