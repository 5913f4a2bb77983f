"""What the records of people's files mean: each becomes rows, prompts or pairs. Faults are ValueErrors in words.

Conversations, told apart by their keys: `messages` (also OpenAI's fine-tuning form with `tools`, `functions` and
`weight`), `conversations` (ShareGPT), `instruction` and `output` (Alpaca), `prompt` and `completion` (TRL).
Preferences: `chosen` and `rejected`, with `edited` and `rating` or without; `responses`, best first or with `scores` or
`ranks`; OpenAI's `preferred_output` and `non_preferred_output`.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from posttrain.data.conversation import assistant, messages_of, parsed, require, short, tools_of, transcript, user
from posttrain.data.read_spec import KIND_OF
from posttrain.data.records import Record
from posttrain.data.rows import EDITED, RATINGS, Check, Message, Pair, Prompt, Row

CONVERSATIONS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
"""Format → the keys that tell it."""
PROMPTS = ("prompt", "messages", "conversations", "instruction")
OTHER_RATINGS = {"negligibly_better": "marginally_better", "negligibly_better_/_unsure": "marginally_better"}
"""Llama 2's name of the lowest level."""
About = dict[str, Any]
Messages = tuple[Message, ...]


def build(record: Record, form: str, about: Mapping[str, Any]) -> list[Any]:
    """The rows, prompts or pairs of a record read as `form`; `about` holds what its own keys do not say.

    Raises ValueError with the reason when the record is not of that form, or of several.
    """
    told = {**about, **_about(record)}
    return BUILDERS[form](record, told)


def _about(record: Record) -> About:
    """The keys that every kind of row has."""
    about: About = {}
    for name in ("capability", "language", "source"):
        if record.get(name) is not None:
            about[name] = record[name]
            require(isinstance(about[name], str) and bool(about[name]), f"{name} is {about[name]!r}, not a text")
    return {**about, "tools": tools_of(record.get("tools") or record.get("functions"))}


def detect(record: Record) -> str:
    """The one conversation format whose keys a record has."""
    found = [name for name, keys in CONVERSATIONS.items() if all(record.get(key) is not None for key in keys)]
    if len(found) > 1:
        keys = ", ".join(key for name in found for key in CONVERSATIONS[name])
        raise ValueError(f"has {keys}, so it may be {' or '.join(found)}; say with format: which is meant")
    if not found:
        hint = "; format: preferences reads it" if _is_preference(record) else ""
        known = ", ".join(" and ".join(keys) for keys in CONVERSATIONS.values())
        raise ValueError(f"has the keys {', '.join(record)[:200] or 'of nothing'}, and none of {known}{hint}")
    return found[0]


def _is_preference(record: Record) -> bool:
    return any(keys <= record.keys() for keys in ({"chosen", "rejected"}, {"responses"}, {"preferred_output"}))


def _detected(record: Record, about: About) -> list[Row]:
    return BUILDERS[detect(record)](record, about)


def _messages(record: Record, about: About) -> list[Row]:
    return _row(messages_of(record.get("messages"), "messages", flags=True), record, about)


def _sharegpt(record: Record, about: About) -> list[Row]:
    found = messages_of(record.get("conversations"), "conversations", flags=True)
    return _row((*_system(record), *found), record, about)


def _alpaca(record: Record, about: About) -> list[Row]:
    answer = record.get("output")
    require(isinstance(answer, str), f"output is {short(answer)}, not a text")
    return _row((*_instruction(record), assistant(answer, "output")), record, about)


def _prompt_completion(record: Record, about: About) -> list[Row]:
    require(record.get("label") is not False, "is a completion with label: false, which nobody should train on")
    given = record.get("completion")
    completion = (assistant(given, "completion"),) if isinstance(given, str) else messages_of(given, "completion", True)
    return _row((*_prompt_of(record), *completion), record, about)


def _row(messages: tuple[Message, ...], record: Record, about: About) -> list[Row]:
    require(messages[-1]["role"] == "assistant", f"ends with a {messages[-1]['role']} message, not the assistant's")
    flags = [message.get("train", True) for message in messages if message["role"] == "assistant"]
    require(any(flags), "says of every assistant message that it is not to be trained")
    return [Row(messages=messages, reward=_number(record, "reward"), **about)]


def _prompt(record: Record, about: About) -> list[Prompt]:
    return [Prompt(messages=_prompt_of(record), check=_check(record.get("check")), **about)]


def _heldout(record: Record, about: About) -> list[Prompt]:
    found = _prompt(record, about)
    require(found[0].check is not None, "has no check, and a checkpoint's answer to it could not be graded")
    return found


def _prompt_of(record: Record) -> tuple[Message, ...]:
    """The conversation that an answer is wanted to, from whichever key holds it."""
    name = next((name for name in PROMPTS if record.get(name) is not None), "")
    require(bool(name), f"has none of {', '.join(PROMPTS)}")
    given = record[name]
    if name == "instruction":
        found = _instruction(record)
    elif name == "prompt" and isinstance(given, str):
        found = (*_system(record), *user(given))
    else:
        found = (*_system(record), *messages_of(given, name))
    require(found[-1]["role"] != "assistant", f"{name} ends with an assistant message; it must end before one")
    return found


def _system(record: Record) -> tuple[Message, ...]:
    """ShareGPT's and Alpaca's `system` beside the conversation."""
    text = record.get("system")
    require(text is None or isinstance(text, str), f"system is {short(text)}, not a text")
    return ({"role": "system", "content": text},) if text else ()


def _instruction(record: Record) -> tuple[Message, ...]:
    """Alpaca's system, earlier turns (`history`), and the instruction with its input below, an empty line between."""
    texts = [record.get("instruction"), record.get("input") or ""]
    require(all(isinstance(text, str) for text in texts), f"instruction or input is {short(texts)}, not a text")
    history: list[Message] = []
    for turn in record.get("history") or []:
        require(isinstance(turn, list) and len(turn) == 2, f"history holds {short(turn)}, not a question and an answer")
        history += [*user(str(turn[0])), assistant(str(turn[1]), "history")]
    return (*_system(record), *history, *user("\n\n".join(text for text in texts if text)))


def _pairs(record: Record, about: About) -> list[Pair]:
    if "preferred_output" in record:
        return _openai_pair(record, about)
    if record.get("responses") is not None:
        return _ranked(record, about)
    for name in ("chosen", "rejected"):
        require(record.get(name) is not None, f"{name} is missing")
    prompt, chosen, rejected = _sides(record)
    found = [_pair(prompt, chosen, rejected, about, rating=_rating(record.get("rating")), margin=_margin(record))]
    if record.get("edited") is not None:
        edited = _answer(record["edited"], "edited", prompt)
        worse = [answer for answer in (chosen, rejected) if answer != edited]
        found += [_pair(prompt, edited, answer, about, rating=EDITED) for answer in worse]
    return found


def _openai_pair(record: Record, about: About) -> list[Pair]:
    given = record.get("input")
    require(isinstance(given, dict), f"input is {short(given)}, not an object with messages")
    assert isinstance(given, dict)
    prompt = messages_of(given.get("messages"), "input.messages")
    chosen, rejected = (
        _answer(record.get(name), name, prompt) for name in ("preferred_output", "non_preferred_output")
    )
    require(chosen != rejected, "preferred_output and non_preferred_output are the same")
    return [_pair(prompt, chosen, rejected, {**about, "tools": tools_of(given.get("tools")) or about["tools"]})]


def _ranked(record: Record, about: About) -> list[Pair]:
    """Every pair of a list of answers, the better first; answers of one rank, or the same, make none."""
    prompt, given = _prompt_of(record), record["responses"]
    require(isinstance(given, list) and len(given) > 1, f"responses is {short(given)}, not a list of two or more")
    answers = [_answer(answer, f"responses[{index}]", prompt) for index, answer in enumerate(given)]
    scores, ranks = record.get("scores"), record.get("ranks")
    require(scores is None or ranks is None, "has scores and ranks; one of them must rank the responses")
    numbers = scores or ranks or range(len(answers))
    good = isinstance(numbers, list | range) and len(numbers) == len(answers)
    require(good and all(_is_number(number) for number in numbers), "scores or ranks are not one number a response")
    height = [number if scores else -number for number in numbers]
    order = sorted(range(len(answers)), key=lambda index: -height[index])
    better = [(a, b) for a, b in combinations(order, 2) if height[a] > height[b] and answers[a] != answers[b]]
    require(bool(better), "no response is ranked above another one")
    said = [(answers[a], answers[b]) for a, b in better]
    require(not any((b, a) in said for a, b in said), "one response is ranked both above and below another one")
    return [
        _pair(prompt, answers[a], answers[b], about, margin=float(height[a] - height[b]) if scores else None)
        for a, b in better
    ]


def _pair(prompt: Messages, chosen: Messages, rejected: Messages, about: About, **more: Any) -> Pair:
    prompt_id = Prompt(prompt, about["capability"], tools=about["tools"]).id
    return Pair(
        prompt=prompt, chosen=chosen[-1], chosen_steps=chosen[:-1], rejected=rejected[-1], rejected_steps=rejected[:-1],
        prompt_id=prompt_id, **about, **more,
    )  # fmt: skip


def _sides(record: Record) -> tuple[Messages, Messages, Messages]:
    """The prompt, which is all that both conversations begin with, and what follows it in each."""
    named = _prompt_of(record) if any(record.get(name) is not None for name in PROMPTS) else ()
    first, second = (_whole(_conversation(record[name], name), named) for name in ("chosen", "rejected"))
    require(first != second, "chosen and rejected are the same")
    require(len(first) > 1, "has neither prompt nor messages, and chosen is an answer alone")
    shortest = min(len(first), len(second))
    shared = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    require(shared < shortest, "one of chosen and rejected goes on where the other one ends")
    roles = {first[shared]["role"], second[shared]["role"]}
    require(bool(shared) and roles == {"assistant"}, "chosen and rejected answer different conversations")
    prompt = first[:shared]
    return prompt, _turns(first[shared:], "chosen"), _turns(second[shared:], "rejected")


def _conversation(given: Any, name: str) -> Messages:
    """A chosen or rejected value as messages: a list, a transcript, or one answer."""
    if isinstance(given, str):
        return transcript(given) or (assistant(given, name),)
    return messages_of(given, name)


def _whole(conversation: Messages, named: Messages) -> Messages:
    """The conversation from its beginning: as it is where it holds the prompt that the record names, else after it."""
    starts = range(len(conversation) - len(named) + 1) if conversation[0]["role"] != "assistant" else ()
    holds = any(conversation[start : start + len(named)] == named for start in starts)
    return conversation if holds else (*named, *conversation)


def _answer(given: Any, name: str, prompt: Messages) -> Messages:
    """What follows the prompt in an answer that is given alone or with it."""
    found = _conversation(given, name)
    return _turns(found[len(prompt) :] if found[: len(prompt)] == prompt else found, name)


def _turns(messages: Messages, name: str) -> Messages:
    """An answer: a message of the assistant's, before it calls of tools and their results in turn, where there are."""
    require(bool(messages), f"{name} has no answer after the prompt")
    wanted: tuple[str, ...] = ("assistant",)
    for message in messages:
        role = message["role"]
        require(bool(wanted), f"{name} goes on after an answer that calls no tool; make every turn a record of its own")
        require(role in wanted, f"{name} has a {role} message after the prompt where the {wanted[0]}'s should stand")
        wanted = ("tool", "assistant") if role == "tool" else ("tool",) if message.get("tool_calls") else ()
    require(messages[-1]["role"] == "assistant", f"{name} ends with the result of a tool; it must end with an answer")
    return messages


def _rating(given: Any) -> str | None:
    """One of the paper's four levels, however it is spelt; `edited` is what the pairs of an edit are given."""
    if given is None:
        return None
    level = "_".join(str(given).lower().replace("-", " ").replace("_", " ").split())
    level = OTHER_RATINGS.get(level, level)
    require(level in RATINGS, f"rating is {short(given)}; known are {', '.join(RATINGS)}")
    return level


def _margin(record: Record) -> float | None:
    """The record's own, or the difference of UltraFeedback's two scores."""
    margin = _number(record, "margin")
    chosen, rejected = _number(record, "score_chosen"), _number(record, "score_rejected")
    return chosen - rejected if margin is None and chosen is not None and rejected is not None else margin


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    require(_is_number(value), f"{name} is {short(value)}, not a number")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether it is a finite one; Parquet has NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(given: Any) -> Check | None:
    given = parsed(given, "check") if isinstance(given, str) and given.startswith("{") else given
    if given is None:
        return None
    require(isinstance(given, dict) and isinstance(given.get("name"), str), f"check {short(given)} has no name")
    args = given.get("args", {})
    require(isinstance(args, dict), f"check.args is {short(args)}, not an object")
    return Check(given["name"], args)


BUILDERS: dict[str, Callable[[Record, About], list[Any]]] = {
    "auto": _detected, "messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca,
    "prompt_completion": _prompt_completion, "prompts": _prompt, "preferences": _pairs, "heldout": _heldout,
}  # fmt: skip
assert BUILDERS.keys() == KIND_OF.keys()
