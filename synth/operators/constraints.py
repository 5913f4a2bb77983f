"""Instructions whose keeping a program can check, in words and as a check: composed in a prompt, or as a system prompt.

The rules are those of `posttrain.checks.constraints`.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from posttrain.data.overlap import words
from posttrain.data.rows import LANGUAGES, Check
from synth.world.languages import ENGLISH_NAMES

Rule = dict[str, Any]
Made = tuple[str, Rule]
"""A sentence for the model and the rule that checks it."""

CONNECTIVES = ("however", "therefore", "for example", "in short", "because", "finally", "instead", "at first")
OPENINGS = ("Sure", "In brief", "Here it is", "Of course")
CLOSINGS = ("That is all.", "I hope this helps.", "End of answer.", "Any questions?")
LIMITS = (20, 30, 50, 80, 120)
"""Words."""
LEAST_LETTERS = 5
"""Of a prompt's word that is forbidden in the answer; shorter ones are needed to speak at all."""


def _contains(rng: Random, prompt: str) -> Made:
    word = rng.choice(CONNECTIVES)
    return f'Use the words "{word}" somewhere.', {"rule": "contains", "words": [word]}


def _excludes(rng: Random, prompt: str) -> Made:
    needed = set(words(" ".join((*CONNECTIVES, *OPENINGS, *CLOSINGS))))
    long = {word for word in words(prompt) if len(word) >= LEAST_LETTERS and word.isalpha()} - needed
    word = rng.choice(sorted(long) or ["very"])
    return f'Do not use the word "{word}".', {"rule": "excludes", "words": [word]}


def _most(rng: Random, prompt: str) -> Made:
    most = rng.choice(LIMITS)
    return f"Answer in at most {most} words.", {"rule": "words", "most": most}


def _least(rng: Random, prompt: str) -> Made:
    least = rng.choice(LIMITS)
    return f"Answer in at least {least} words.", {"rule": "words", "least": least}


def _opening(rng: Random, prompt: str) -> Made:
    text = rng.choice(OPENINGS)
    return f'Begin your answer with "{text}".', {"rule": "starts_with", "text": text}


def _closing(rng: Random, prompt: str) -> Made:
    text = rng.choice(CLOSINGS)
    return f'End your answer with "{text}", and write nothing after it.', {"rule": "ends_with", "text": text}


def _lower(rng: Random, prompt: str) -> Made:
    return "Use lowercase letters only.", {"rule": "case", "case": "lower"}


def _upper(rng: Random, prompt: str) -> Made:
    return "Write everything in capital letters.", {"rule": "case", "case": "upper"}


FAMILIES: dict[str, tuple[Callable[[Random, str], Made], ...]] = {
    "keywords": (_contains,), "forbidden": (_excludes,), "length": (_most, _least),
    "opening": (_opening,), "closing": (_closing,), "case": (_lower, _upper),
}  # fmt: skip
APART = {"case": {"opening", "closing"}, "opening": {"case"}, "closing": {"case"}}
"""Families that cannot be kept together."""


def compose(rng: Random, prompt: str, most: int) -> tuple[str, Check]:
    """One to `most` constraints of different families that can be kept together: the sentences, and the check."""
    chosen: list[str] = []
    for family in rng.sample(sorted(FAMILIES), len(FAMILIES)):
        if len(chosen) < most and not APART.get(family, set()) & set(chosen):
            chosen.append(family)
    chosen = chosen[: rng.randint(1, most)]
    made = [rng.choice(FAMILIES[family])(rng, prompt) for family in chosen]
    return " ".join(said for said, _ in made), Check("constraints", {"rules": [rule for _, rule in made]})


def steer(rng: Random, language: str) -> tuple[str, Check | None]:
    """A system prompt on length, format or language with its check; empty where it is to be a persona."""
    kind = rng.choice(("persona", "length", "format", "language"))
    if kind == "persona":
        return "", None
    if kind == "language":
        to = rng.choice([code for code in LANGUAGES if code != language])
        said = f"Always answer in {ENGLISH_NAMES[to]}, whatever language the user writes in."
        return said, Check("language", {"language": to})
    said, rule = _most(rng, "") if kind == "length" else rng.choice((_closing, _lower, _upper))(rng, "")
    return f"This holds for all your answers. {said}", Check("constraints", {"rules": [rule]})
