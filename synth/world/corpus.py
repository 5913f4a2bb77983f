"""What the tiny family is trained on: single prompts, and dense conversations that ask many things of one context.

A dense conversation teaches from every turn: several questions to one haystack, several requests to one list of
functions. Each of its turns is on the training side as a prompt of its own.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import Message, Prompt
from synth.world import CAPABILITIES, long_context, make, multilingual, operators, split, tool_use
from synth.world.base import Conversation, Example, user
from synth.world.words import NAMES, WORDS

Alter = Callable[[Example, random.Random], Message]
"""What an answer becomes: the gold for clean data, sometimes a wrong one for the base's noise."""


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of rows, not normalised. `lengths` are the single needle prompts' target tokens."""

    tool_use: float = 1.0
    multilingual: float = 1.0
    long_context: float = 1.0
    instructions: float = 1.0
    operators: float = 0.0
    dense: float = 0.5
    """Chance that a row is a dense conversation."""
    lengths: tuple[int, ...] = (128, 256)
    dense_lengths: tuple[int, ...] = (150, 250, 350)
    """Target tokens of the haystacks that many questions are asked of."""
    level2: float = 0.5
    copying: float = 0.0
    """Chance of a row of random tokens that are repeated, or looked up by key."""


def gold_of(example: Example, _: random.Random) -> Message:
    return example.gold


def conversation(rng: random.Random, mixture: Mixture, alter: Alter = gold_of) -> Conversation:
    """One training row drawn from the mixture."""
    shares = {name: getattr(mixture, name) for name in CAPABILITIES} | {"operators": mixture.operators}
    kind = rng.choices(list(shares), list(shares.values()))[0]
    level = 2 if rng.random() < mixture.level2 else 1
    if kind == "operators":
        return operators.draw(rng, level)
    if rng.random() < mixture.dense:
        if kind == "long_context":
            return _dense_codes(rng, level, alter, mixture.dense_lengths)
        return DENSE[kind](rng, level, alter)
    options = {"lengths": mixture.lengths} if kind == "long_context" else {}
    drawn = make(kind, rng, "train", level, **options)
    return Conversation((*drawn.prompt.messages, alter(drawn, rng)), drawn.prompt.tools, last_only=True)


def _joined(examples: Sequence[Example], rng: random.Random, alter: Alter) -> Conversation:
    messages: list[Message] = []
    for drawn in examples:
        messages += [*drawn.prompt.messages, alter(drawn, rng)]
    return Conversation(tuple(messages), examples[0].prompt.tools)


def _dense_tools(rng: random.Random, level: int, alter: Alter) -> Conversation:
    """Several requests to one list of functions."""
    tools = tool_use.draw(rng, level)["tools"]
    return _joined([make("tool_use", rng, "train", level, tools=tools) for _ in range(rng.randint(3, 5))], rng, alter)


def _dense_languages(rng: random.Random, level: int, alter: Alter) -> Conversation:
    """Stories of different people, one after the other."""
    names = rng.sample(NAMES, len(NAMES))
    language = rng.choice(list(multilingual.TABLE))
    drawn = [
        make("multilingual", rng, "train", level, language=language, names=names[start : start + 4])
        for start in range(0, 4 * rng.randint(3, 6), 4)
    ]
    return _joined(drawn, rng, alter)


def _dense_instructions(rng: random.Random, level: int, alter: Alter) -> Conversation:
    """Lists of different words, one after the other."""
    words = rng.sample(WORDS, len(WORDS))
    drawn = [
        make("instructions", rng, "train", level, words=words[start : start + 6])
        for start in range(0, 6 * rng.randint(3, 5), 6)
    ]
    return _joined(drawn, rng, alter)


def _dense_codes(rng: random.Random, level: int, alter: Alter, lengths: tuple[int, ...]) -> Conversation:
    """Many codes close together and many questions; the haystack stands in the first turn only."""
    spec = long_context.draw(rng, level, lengths=lengths, codes=rng.choice((4, 8, 12, 16)))
    keys = [key for key, _ in spec["needles"]]
    messages: list[Message] = []
    for _ in range(rng.randint(5, 9)):
        asked = _code_question(spec, rng, keys, level)
        question = asked.prompt.messages[0]["content"]
        text = question.rsplit("\n\n", 1)[1] if messages else question
        messages += [user(text), alter(asked, rng)]
    return Conversation(tuple(messages))


def _code_question(spec: dict[str, Any], rng: random.Random, keys: list[str], level: int) -> Example:
    while True:
        own = {**spec, "asked": rng.sample(keys, level)}
        prompt: Prompt = long_context.build(own, long_context.state(own, rng))
        if split(prompt) == "train":
            return Example(prompt, long_context.gold(own), own)


DENSE: dict[str, Callable[[random.Random, int, Alter], Conversation]] = {
    "tool_use": _dense_tools,
    "multilingual": _dense_languages,
    "instructions": _dense_instructions,
}


def copying_row(rng: random.Random, tokens: int) -> tuple[list[int], list[int]]:
    """Ids and mask of random tokens said twice, or of `key separator value` triples asked for in another order."""
    if rng.random() < 0.5:
        once = [rng.randrange(tokens) for _ in range(rng.randint(6, 32))]
        return once * 2, [0] * (len(once) + 1) + [1] * (len(once) - 1)
    keys, separator = rng.sample(range(tokens), rng.randint(3, 16)), rng.randrange(tokens)
    triples = [[key, separator, rng.randrange(tokens)] for key in keys]
    asked = rng.sample(triples, len(triples))
    ids = [token for triple in (*triples, *asked) for token in triple]
    return ids, [0] * 3 * len(keys) + [0, 0, 1] * len(keys)
