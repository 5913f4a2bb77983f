"""Needles: short facts of the world hidden in a text, some of which are asked for (P 5.2.6: four in, two asked)."""

from random import Random

from posttrain.data.rows import Check
from synth.long_context.contexts import PARAGRAPH
from synth.world.base import Spec
from synth.world.words import KEYS, WORDS

HIDDEN, ASKED = 4, 2
NEEDLE = "The code of {key} is {value}."


def hide(rng: Random, text: str, positions: list[float]) -> tuple[str, Spec]:
    """The text with HIDDEN needles between its paragraphs, near the positions (0 to 1), and the task of the world
    (`synth.world.long_context`) that asks for the first ASKED of them. No key stands in the text itself."""
    keys = rng.sample([key for key in KEYS if key not in text], HIDDEN)
    needles = [[key, value] for key, value in zip(keys, rng.sample(WORDS, HIDDEN), strict=True)]
    paragraphs = [one for one in PARAGRAPH.findall(text) if one]
    ends, total = [0], 0
    for paragraph in paragraphs:
        total += len(paragraph)
        ends.append(total)
    hidden: dict[int, list[str]] = {}
    for (key, value), position in zip(needles, positions, strict=True):
        place = min(range(len(ends)), key=lambda at: abs(ends[at] - position * total))
        hidden.setdefault(place, []).append(NEEDLE.format(key=key, value=value))
    told = []
    for place, paragraph in enumerate([*paragraphs, ""]):
        told += [f"{needle}\n\n" for needle in hidden.get(place, ())]
        told.append(paragraph)
    spec = {"capability": "long_context", "kind": "codes", "needles": needles, "asked": keys[:ASKED]}
    return "".join(told), spec


def check_of(spec: Spec) -> Check:
    """The asked values and none of the others."""
    values = {key: value for key, value in spec["needles"] if key in spec["asked"]}
    others = [value for key, value in spec["needles"] if key not in spec["asked"]]
    return Check("needle", {"needles": list(values.values()), "others": others})
