"""Long context: codes hidden among filler sentences, asked for in the words in which they were told."""

import random
import re
from collections.abc import Callable
from typing import Any

from posttrain.data.rows import Check, Message, Prompt
from synth.world.base import Spec, says, user
from synth.world.words import CITIES, KEYS, NAMES, ROOMS, WORDS

CAPABILITY = "long_context"
LENGTHS = (256, 512, 1024, 2000)
OVERHEAD_TOKENS = 60
"""Chat headers, dates and the question, of a prompt's target length."""

NEEDLE = "The code of {key} is {value}."
QUESTIONS = {
    1: ("What is the code of {0}?", "Tell me the code of {0}.", "Question: the code of {0}?"),
    2: ("What are the codes of {0} and {1}?", "Tell me the codes of {0} and {1}.",
        "Question: the codes of {0} and {1}?"),
}  # fmt: skip
FILLER = (
    "{name} walked to the {room} with a {word}.",
    "In {city} the {word} was near the {word2}.",
    "{name} and {name2} talked about {city}.",
    "There was a {word} in the {room}.",
    "The train from {city} was late.",
    "{name} gave the {word} to {name2}.",
    "Nobody saw the {word} in {city}.",
    "{name} likes the {room} in {city}.",
)


def count_words(text: str) -> int:
    """Words and punctuation marks: nearly the tiny tokenizer's count. Pass another counter for another model."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def draw(
    rng: random.Random,
    level: int = 1,
    lengths: tuple[int, ...] = LENGTHS,
    count: Callable[[str], int] = count_words,
    codes: int | None = None,
) -> Spec:
    """One task of a drawn length in tokens. Level 1: 3 to 6 codes, one asked; level 2: 8 to 12 codes, two asked."""
    codes = codes or (rng.randint(3, 6) if level == 1 else rng.randint(8, 12))
    keys, values = rng.sample(KEYS, codes), rng.sample(WORDS, codes)
    needles = [[key, value] for key, value in zip(keys, values, strict=True)]
    length = rng.choice(lengths)
    asked = rng.sample(keys, 1 if level == 1 else 2)
    return {
        "capability": CAPABILITY, "kind": "codes", "level": level, "length": length,
        "needles": needles, "asked": asked, "haystack": _haystack(rng, needles, length - OVERHEAD_TOKENS, count),
    }  # fmt: skip


def _haystack(rng: random.Random, needles: list[list[str]], tokens: int, count: Callable[[str], int]) -> str:
    sentences = [NEEDLE.format(key=key, value=value) for key, value in needles]
    left = tokens - sum(count(sentence) for sentence in sentences)
    fillers: list[str] = []
    while left > 0:
        fillers.append(_filler(rng))
        left -= count(fillers[-1])
    places = sorted(rng.randint(0, len(fillers)) for _ in sentences)
    for place, sentence in reversed(list(zip(places, sentences, strict=True))):
        fillers.insert(place, sentence)
    return " ".join(fillers)


def _filler(rng: random.Random) -> str:
    (name, name2), (word, word2) = rng.sample(NAMES, 2), rng.sample(WORDS, 2)
    return rng.choice(FILLER).format(
        name=name, name2=name2, word=word, word2=word2, city=rng.choice(CITIES), room=rng.choice(ROOMS)
    )


def state(spec: Spec, rng: random.Random) -> str:
    return rng.choice(QUESTIONS[len(spec["asked"])]).format(*spec["asked"])


def build(spec: Spec, text: str) -> Prompt:
    """The haystack, and after it the question `text`."""
    check = Check("exact", {"answers": [gold(spec)["content"]]})
    return Prompt((user(f"{spec['haystack']}\n\n{text}"),), CAPABILITY, check=check)


def gold(spec: Spec) -> Message:
    values = dict(spec["needles"])
    return says(" ".join(NEEDLE.format(key=key, value=values[key]) for key in spec["asked"]))


def faithful(spec: Spec, text: str) -> bool:
    """The asked keys stand in the text in their order, no other key does, and it asks for a code."""
    found = [word for word in re.findall(r"\w+", text) if word in KEYS]
    return found == spec["asked"] and "code" in text


def operator(spec: Spec) -> dict[str, Any]:
    """Variables of the operator prompt `long_context/new_prompt`."""
    return {"answer": gold(spec)["content"]}
