"""The base's failures: wrong answers of two depths, tied to features of the prompt.

Each value of a feature (which function and kind, which language and task, which key, which transform and layout) has
its own share of right answers and its own dominant wrong answer, so that a model must be cured feature by feature.
Shallow wrong answers break the form, deep ones the content. A second deep error appears now and then.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from posttrain.data.rows import Message, content_id
from synth.world import instructions, multilingual, tool_use
from synth.world.base import Example, Spec, calls, says
from synth.world.languages import TABLE
from synth.world.long_context import NEEDLE

RIGHT_SHARES = {
    "tool_use": (0.24, 0.28, 0.32, 0.42, 0.6),
    "multilingual": (0.27, 0.3, 0.33, 0.38, 0.58),
    "long_context": (0.3, 0.32, 0.34, 0.36, 0.6),
    "instructions": (0.25, 0.28, 0.32, 0.36, 0.58),
}
"""A feature's chance of the right answer; only the last, drawn for one in five, beats its dominant error.
A short stage blurs the features, so that a model is right more often greedily, and less often at all, than they say."""
SECOND_ERROR = 0.06
"""Chance of the feature's second error."""
NOISE_SEED = 921
"""Of 1,500 tried, one that spreads chances and depths of error evenly over capabilities and levels."""
SHALLOW_SHARE = 0.5
"""Features whose dominant error is one of form."""

Wrong = Callable[[Spec, Message], Message | None]
"""A wrong answer to a spec with its gold, or None where this error does not fit the spec."""


def feature(example: Example) -> tuple[Any, ...]:
    """What of a task decides how it fails; few enough values that a short stage teaches each of them."""
    spec = example.spec
    kind = spec["capability"]
    if kind == "tool_use":
        return kind, spec["calls"][0]["name"].partition("_")[0], spec["kind"]
    if kind == "multilingual":
        return kind, spec["language"], spec["kind"]
    if kind == "long_context":
        question = example.prompt.messages[0]["content"].rpartition("\n\n")[2]
        return kind, question.partition(" ")[0], len(spec["asked"])
    return kind, spec["transform"], spec["layout"], spec["upper"] or spec["ending"]


def noisy(example: Example, rng: random.Random, seed: int = NOISE_SEED) -> Message:
    """The gold, or the wrong answer that the prompt's feature calls for."""
    spec, gold = example.spec, example.gold
    own = random.Random(content_id(seed, feature(example)))
    share = own.choice(RIGHT_SHARES[spec["capability"]])
    shallow, deep = (own.sample(errors, len(errors)) for errors in ERRORS[spec["capability"]])
    order = shallow + deep if own.random() < SHALLOW_SHARE else deep + shallow
    fate = rng.random()
    if fate < share:
        return gold
    made = fitting(order if fate >= share + SECOND_ERROR else deep[::-1] + shallow, spec, gold)
    return made[0]


def fitting(errors: Sequence[Wrong], spec: Spec, gold: Message) -> list[Message]:
    """The wrong answers among `errors` that fit a spec; each capability has a shallow one that always does."""
    return [wrong for error in errors if (wrong := error(spec, gold)) is not None and wrong != gold]


# Tool use


def _call_texts(spec: Spec, render: Callable[[str, dict[str, Any]], Any]) -> Message | None:
    if spec["kind"] == "result":
        return None
    made = [render(call["name"], call["arguments"]) for call in spec["calls"]]
    return says(json.dumps(made[0] if len(made) == 1 else made))


def _arguments_key(spec: Spec, _: Message) -> Message | None:
    return _call_texts(spec, lambda name, arguments: {"name": name, "arguments": arguments})


def _no_parameters(spec: Spec, _: Message) -> Message | None:
    return _call_texts(spec, lambda name, arguments: {"name": name, **arguments})


def _prose(spec: Spec, _: Message) -> Message | None:
    made = [f"{call['name']}({', '.join(str(v) for v in call['arguments'].values())})" for call in spec["calls"]]
    return None if spec["kind"] == "result" else says(" ".join(made))


def _result_only(spec: Spec, _: Message) -> Message | None:
    return says(f"{spec['result']}.") if spec["kind"] == "result" else None


def _recalled(spec: Spec, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Message | None:
    """The calls with the last one changed."""
    if spec["kind"] == "result":
        return None
    changed = change(dict(spec["calls"][-1]["arguments"]))
    if changed is None:
        return None
    return calls(*spec["calls"][:-1], {"name": spec["calls"][-1]["name"], "arguments": changed})


def _last_argument_lost(spec: Spec, _: Message) -> Message | None:
    return _recalled(spec, lambda arguments: dict(list(arguments.items())[:-1]))


def _one_more(spec: Spec, _: Message) -> Message | None:
    def raised(arguments: dict[str, Any]) -> dict[str, Any] | None:
        numbers = {key: value + 1 for key, value in arguments.items() if isinstance(value, int)}
        return {**arguments, **numbers} if numbers else None

    return _recalled(spec, raised)


def _values_swapped(spec: Spec, _: Message) -> Message | None:
    def swapped(arguments: dict[str, Any]) -> dict[str, Any] | None:
        (first, one), (second, two), *rest = arguments.items()
        same_kind = isinstance(one, str) and isinstance(two, str)
        return {first: two, second: one, **dict(rest)} if same_kind else None

    return _recalled(spec, swapped)


def _first_call_only(spec: Spec, _: Message) -> Message | None:
    return calls(spec["calls"][0]) if spec["kind"] == "parallel" else None


def _first_tool(spec: Spec, _: Message) -> Message | None:
    last, *others = spec["calls"][::-1]
    if spec["kind"] == "result" or last["name"] == spec["tools"][0]:
        return None
    return calls(*others, {"name": spec["tools"][0], "arguments": last["arguments"]})


def _name_as_result(spec: Spec, gold: Message) -> Message | None:
    if spec["kind"] != "result":
        return None
    return says(gold["content"].replace(f"is {spec['result']}.", "is done."))


def _result_first(spec: Spec, gold: Message) -> Message | None:
    if spec["kind"] != "result":
        return None
    noun = tool_use.FUNCTIONS[spec["calls"][0]["name"]][1]
    return says(gold["content"].replace(f"The {noun} ", "The call ").replace(f" {noun} ", " call "))


# Multilingual


def _value_only(_: Spec, gold: Message) -> Message | None:
    return says(gold["content"].rstrip(".।").split()[-1])


def _prefixed(_: Spec, gold: Message) -> Message | None:
    return says(f"Answer: {gold['content']}")


def _in_english(spec: Spec, _: Message) -> Message | None:
    return None if spec["language"] == "en" else says(multilingual.answer({**spec, "language": "en"}))


def _neighbour(spec: Spec, _: Message) -> Message | None:
    """The first person's line, or the last one's when the first was asked for."""
    if spec["kind"] != "lookup":
        return None
    other = 0 if spec["asked"] else len(spec["facts"]) - 1
    return says(multilingual.answer({**spec, "asked": other}))


def _not_changed(spec: Spec, _: Message) -> Message | None:
    """The first number, day or quality of the story as it stood."""
    people = [spec["people"][-1]] if "people" in spec else []
    if spec["kind"] in ("plus", "minus"):
        return says(multilingual.answer({**spec, "numbers": [spec["numbers"][0], 0]}))
    if spec["kind"] == "day":
        return says(multilingual.answer({**spec, "people": people * 2, "later": 0}))
    if spec["kind"] == "opposite":
        pair, side = spec["quality"]
        return says(multilingual.answer({**spec, "quality": [pair, 1 - side]}))
    return None


def _off_by_one(spec: Spec, _: Message) -> Message | None:
    if spec["kind"] in ("plus", "minus"):
        a, b = spec["numbers"]
        return says(multilingual.answer({**spec, "numbers": [a + 1, b]}))
    return says(multilingual.answer({**spec, "later": spec["later"] + 1})) if spec["kind"] == "day" else None


def _item_lost(spec: Spec, gold: Message) -> Message | None:
    words = TABLE[spec["language"]]
    lost = gold["content"].replace(f" {words.items[spec['item']]}", "", 1)
    return says(lost) if spec["kind"] in ("plus", "minus") else None


# Long context


def _bare_codes(spec: Spec, _: Message) -> Message | None:
    values = dict(spec["needles"])
    return says(" ".join(f"{key} is {values[key]}." for key in spec["asked"]))


def _one_of_two(spec: Spec, _: Message) -> Message | None:
    values = dict(spec["needles"])
    first = spec["asked"][0]
    return says(NEEDLE.format(key=first, value=values[first])) if len(spec["asked"]) == 2 else None


# Instructions


def _laid_out(spec: Spec, **changes: Any) -> Message | None:
    return instructions.gold({**spec, **changes})


def _sure(_: Spec, gold: Message) -> Message | None:
    return says(f"Sure: {gold['content']}")


def _as_commas(spec: Spec, _: Message) -> Message | None:
    return _laid_out(spec, layout="commas")


def _as_bullets(spec: Spec, _: Message) -> Message | None:
    return _laid_out(spec, layout="bullets")


def _no_extras(spec: Spec, _: Message) -> Message | None:
    return _laid_out(spec, upper=False, ending=False)


def _last_word_lost(spec: Spec, _: Message) -> Message | None:
    return _laid_out(spec, words=instructions.items(spec)[:-1], transform="same")


def _not_transformed(spec: Spec, _: Message) -> Message | None:
    return _laid_out(spec, transform="same")


def _last_word_again(spec: Spec, _: Message) -> Message | None:
    items = instructions.items(spec)
    return _laid_out(spec, words=[*items, items[-1]], transform="same")


ERRORS: dict[str, tuple[tuple[Wrong, ...], tuple[Wrong, ...]]] = {
    "tool_use": (
        (_arguments_key, _no_parameters, _prose, _result_only),
        (_last_argument_lost, _one_more, _values_swapped, _first_call_only, _first_tool, _name_as_result,
         _result_first),
    ),
    "multilingual": (
        (_value_only, _prefixed, _in_english),
        (_neighbour, _not_changed, _off_by_one, _item_lost),
    ),
    "long_context": ((_bare_codes, _sure), (_one_of_two,)),
    "instructions": (
        (_sure, _as_commas, _as_bullets, _no_extras),
        (_last_word_lost, _not_transformed, _last_word_again),
    ),
}  # fmt: skip
"""Shallow and deep errors of each capability."""
