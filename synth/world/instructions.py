"""Instructions: a transform, a layout, a case and an ending over a list of words, all of it checkable."""

import json
import random
from typing import Any

from posttrain.data.rows import Check, Message, Prompt
from synth.world.base import Spec, one_of, says, user
from synth.world.words import WORDS

CAPABILITY = "instructions"

TRANSFORMS = {
    "same": "in the same order",
    "reverse": "in reverse order",
    "first": "but only the first two",
    "last": "but only the last two",
    "twice": "twice",
}
LAYOUTS = {
    "spaces": "separated by spaces",
    "commas": "separated by commas",
    "bullets": "as bullets",
    "numbered": "as a numbered list",
    "json": "as a JSON list",
}
UPPER = "in upper case"
ENDING = "Done."
ENDING_WORDS = f'End with "{ENDING}"'
WORDINGS = (
    "Words: {words}. Write them {how}.{end}",
    "Write these words {how}: {words}.{end}",
    "Here are words: {words}. Give them back {how}.{end}",
)


def draw(rng: random.Random, level: int = 1, words: list[str] | None = None) -> Spec:
    """One task. Level 1: 3 or 4 words, a transform, a layout; level 2: 4 to 6 words, and a case, an ending or both."""
    count = rng.randint(3, 4) if level == 1 else rng.randint(4, 6)
    extra = one_of(rng, ("upper", 0.35), ("ending", 0.35), ("both", 0.3)) if level == 2 else "none"
    return {
        "capability": CAPABILITY, "kind": "words", "level": level, "words": rng.sample(words or WORDS, count),
        "transform": rng.choice(list(TRANSFORMS)), "layout": rng.choice(list(LAYOUTS)),
        "upper": extra in ("upper", "both"), "ending": extra in ("ending", "both"),
    }  # fmt: skip


def how(spec: Spec) -> str:
    parts = [TRANSFORMS[spec["transform"]], LAYOUTS[spec["layout"]]]
    return " ".join([*parts, UPPER] if spec["upper"] else parts)


def state(spec: Spec, rng: random.Random) -> str:
    end = f" {ENDING_WORDS}" if spec["ending"] else ""
    return rng.choice(WORDINGS).format(words=", ".join(spec["words"]), how=how(spec), end=end)


def items(spec: Spec) -> list[str]:
    """The words as they are to stand in the answer, case aside."""
    words: list[str] = spec["words"]
    return {
        "same": words, "reverse": words[::-1], "first": words[:2], "last": words[-2:], "twice": words * 2,
    }[spec["transform"]]  # fmt: skip


def rules(spec: Spec) -> list[dict[str, Any]]:
    before = {"before": ENDING} if spec["ending"] else {}
    made: list[dict[str, Any]] = [{"rule": "items", "layout": spec["layout"], "items": items(spec), **before}]
    made.append({"rule": "case", "case": "upper" if spec["upper"] else "lower", **before})
    return [*made, {"rule": "ends_with", "text": ENDING}] if spec["ending"] else made


def build(spec: Spec, text: str) -> Prompt:
    return Prompt((user(text),), CAPABILITY, check=Check("constraints", {"rules": rules(spec)}))


def laid_out(words: list[str], layout: str) -> str:
    """The words in one of the layouts."""
    if layout == "json":
        return json.dumps(words)
    if layout in ("bullets", "numbered"):
        marks = ["-" if layout == "bullets" else f"{number}." for number in range(1, len(words) + 1)]
        return "\n".join(f"{mark} {word}" for mark, word in zip(marks, words, strict=True))
    return (" " if layout == "spaces" else ", ").join(words)


def gold(spec: Spec) -> Message:
    words = [word.upper() for word in items(spec)] if spec["upper"] else items(spec)
    text = laid_out(words, spec["layout"])
    return says(f"{text}\n{ENDING}" if spec["ending"] else text)


def faithful(spec: Spec, text: str) -> bool:
    """The words stand in the text in order and each demand does in its words; nothing else is demanded."""
    listed = ", ".join(spec["words"])
    demands = {TRANSFORMS[spec["transform"]], LAYOUTS[spec["layout"]]}
    demands |= {UPPER} if spec["upper"] else set()
    demands |= {ENDING_WORDS} if spec["ending"] else set()
    known = {*TRANSFORMS.values(), *LAYOUTS.values(), UPPER, ENDING_WORDS}
    stray = set(WORDS) - set(spec["words"])
    return f"{listed}." in text and not any(w in text for w in stray) and {d for d in known if d in text} == demands


def operator(spec: Spec) -> dict[str, Any]:
    """Variables of the operator prompt `instructions/new_prompt`."""
    return {"words": ", ".join(spec["words"]), "how": how(spec), "ending": ENDING if spec["ending"] else "no"}
