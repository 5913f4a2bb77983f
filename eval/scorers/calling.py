"""Tool use beyond one answer: whether there is a call at all, and dialogs whose tools were really run."""

import json
from collections.abc import Sequence
from typing import Any

from eval.desk import State, run_call
from eval.scorers.reading import Reading, right, wrong
from posttrain.checks.calls import Call, functions_of
from posttrain.checks.verdict import Args
from posttrain.data.rows import Message, canonical_json


class AnyCallArgs(Args):
    """Needs nothing: BFCL's relevance asks for some call, irrelevance (`call_rules` with no calls) for none."""


def any_call(message: Message, args: AnyCallArgs) -> Reading:
    """The answer calls something."""
    names = [function["name"] for function in functions_of(message)]
    return right(", ".join(names)) if names else wrong("no call")


class Turn(Args):
    """What the user says, and the calls that do it."""

    user: str
    calls: Sequence[Call]


class DialogArgs(Args):
    """A dialog over the desk of `eval.desk`: how it stands at first, and the turns."""

    state: dict[str, Any]
    turns: Sequence[Turn]


def dialog(message: Message, args: DialogArgs) -> Reading:
    """The transcript (a JSON list of messages) leaves the desk after every turn as the wanted calls leave it, and has
    by then seen all results that the turn's wanted calls give; a turn that wants calls has one at least (BFCL's
    state-based and response-based checks, `multi_turn_checker`)."""
    try:
        turns = _turns_of(json.loads(message["content"]))
    except ValueError:
        return wrong("no transcript")
    if len(turns) < len(args.turns):
        return wrong(f"ends in turn {len(turns)} of {len(args.turns)}", f"{len(turns)} turns")
    got, wanted, seen = State(args.state), State(args.state), list[Any]()
    calls = sum(map(len, turns))
    for number, (made, turn) in enumerate(zip(turns, args.turns, strict=True), 1):
        seen += [run_call(got, call["name"], call["arguments"]) for call in made]
        needed = [run_call(wanted, call.name, call.arguments) for call in turn.calls]
        if turn.calls and not made:
            return wrong(f"turn {number} has no call", f"{calls} calls")
        if got.key() != wanted.key():
            return wrong(f"another state after turn {number}", f"{calls} calls")
        if not _contained(needed, seen):
            return wrong(f"turn {number} lacks a result", f"{calls} calls")
    return right(f"{calls} calls")


def _contained(needed: list[Any], seen: list[Any]) -> bool:
    left = [canonical_json(result) for result in seen]
    for result in map(canonical_json, needed):
        if result not in left:
            return False
        left.remove(result)
    return True


def _turns_of(transcript: list[Message]) -> list[list[dict[str, Any]]]:
    """The calls of each turn that was answered in the end."""
    turns: list[list[dict[str, Any]]] = []
    ended = 0
    for message in transcript:
        if message["role"] == "user":
            turns.append([])
        elif message["role"] == "assistant":
            turns[-1] += functions_of(message)
            ended = len(turns) if not functions_of(message) else ended
    return turns[:ended]
