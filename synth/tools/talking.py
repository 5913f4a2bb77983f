"""Dialogs with mined tools, and pairs of two messages in one context (P 4.3.5 annotates message by message)."""

import json
from collections.abc import Mapping, Sequence

from posttrain.checks.calls import functions_of
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check, Message, Pair, canonical_json
from synth.operators import Item, Work, as_json, ask, converse, parse, prefer, sift
from synth.operators.asking import CALLS_WITHOUT_END
from synth.tools.mining import Mined
from synth.tools.running import made, off_schema, tool_message


def speak(work: Work, items: Sequence[Item], tools: Mapping[str, Mined], most: int, simulate: bool) -> list[Item]:
    """Let the model speak, its calls being run, until it answers in text; all is appended to the items' `messages`.

    Every call is checked against its schema and made in the sandbox. With `simulate` the teacher says what a method
    would return, which cannot be made without an object. An item that calls in `most` messages is dropped.
    """
    done: list[Item] = []
    for _ in range(most):
        items = converse(
            work, items, lambda item: item["messages"], tools=lambda item: item["tools"], into="message",
            temperature=0.0,
        )  # fmt: skip
        items = [item.plus(messages=[*item["messages"], item["message"]]) for item in items]
        done += [item for item in items if not functions_of(item["message"])]
        calling = [item.plus(calls=functions_of(item["message"])) for item in items if functions_of(item["message"])]
        items = answered(work, calling, tools, simulate)
    for item in items:
        work.drop(item, "dialog", CALLS_WITHOUT_END, json.dumps(item["calls"], ensure_ascii=False))
    return sorted(done, key=lambda item: item.id)


def answered(work: Work, items: Sequence[Item], tools: Mapping[str, Mined], simulate: bool) -> list[Item]:
    """The items whose calls `calls` had results, which are appended to their messages."""
    known = sift(
        work, items, lambda item: "" if all(c["name"] in tools for c in item["calls"]) else "unknown tool", "tools"
    )
    real = [item for item in known if all(tools[call["name"]].runs for call in item["calls"])]
    ran = made(work, real, tools, of="calls", into="values", step="execute")
    others = {item.id: item for item in known} if simulate else {}
    for item in real:
        others.pop(item.id, None)
    return [_told(item) for item in (*ran, *_simulated(work, list(others.values()), tools))]


def _simulated(work: Work, items: list[Item], tools: Mapping[str, Mined]) -> list[Item]:
    """What the teacher says that the calls return, one after the other."""
    items = sift(work, items, lambda item: off_schema(item["calls"], tools), "simulate: schema")
    items = [item.plus(values=[]) for item in items]
    done: list[Item] = []
    while items:
        calls = {item.id: item["calls"][len(item["values"])] for item in items}
        items = [
            item.plus(
                definition=_json(tools[calls[item.id]["name"]].tool["function"]), call=_json(calls[item.id]),
                conversation=told(item["messages"]),
            )
            for item in items
        ]  # fmt: skip
        items = ask(work, items, "functions/result", into="said", step="simulate")
        items = parse(work, items, as_json(), of="said", into="value", step="simulate: JSON")
        items = [item.plus(values=[*item["values"], item["value"]]) for item in items]
        done += [item for item in items if len(item["values"]) == len(item["calls"])]
        items = [item for item in items if len(item["values"]) < len(item["calls"])]
    return done


def _told(item: Item) -> Item:
    return item.plus(messages=[*item["messages"], *map(tool_message, item["values"])])


def contest(work: Work, items: Sequence[Item], share: float, temperature: float) -> dict[str, Pair]:
    """Of a share of finished dialogs, a pair each: one of the model's messages and another that it wrote in its place.

    The other is drawn at `temperature` in the same context. Where `checks` of the item, by the message's place, has a
    Check, it must fail it; elsewhere the judge must prefer the dialog's own in both orders.
    """
    drawn = []
    for item in items:
        rng = work.rng("contest", item.id)
        if rng.random() < share:
            own = [at for at, one in enumerate(item["messages"]) if one["role"] == "assistant"]
            place = rng.choice(own)
            drawn.append(item.plus(context=item["messages"][:place], own=item["messages"][place], place=place))
    rivals = converse(
        work, drawn, lambda item: item["context"], tools=lambda item: item["tools"], into="rival",
        temperature=temperature, step="rival",
    )  # fmt: skip
    rivals = sift(work, rivals, lambda item: "the same again" if _same(item["own"], item["rival"]) else "", "rivals")
    graded = [item for item in rivals if _check(item)]
    graded = sift(work, graded, _rival_passes, "rivals: check")
    free = [item for item in rivals if not _check(item)]
    preferred = prefer(work, free, lambda item: work.prompt(item, item["context"], item["tools"]), "own", "rival")
    return {
        item.id: work.pair(
            item, work.prompt(item, item["context"], item["tools"]), item["own"], item["rival"],
            item.values.get("rating"),
        )
        for item in (*graded, *preferred)
    }  # fmt: skip


def _check(item: Item) -> Check | None:
    found: Check | None = item["checks"].get(item["place"])
    return found


def _rival_passes(item: Item) -> str:
    check = _check(item)
    assert check is not None
    value = grade(check, item["rival"]).value
    return "ungradable" if value is None else "the other is right too" if value == 1.0 else ""


def _same(one: Message, other: Message) -> bool:
    return canonical_json([one.get("content"), functions_of(one)]) == canonical_json(
        [other.get("content"), functions_of(other)]
    )


def told(messages: Sequence[Message]) -> str:
    """A conversation as text for a reader."""
    return "\n\n".join(
        f"{one['role']}: " + "\n".join(filter(None, [one["content"], *map(_json, functions_of(one))]))
        for one in messages
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
