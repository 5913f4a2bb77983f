"""Hazard categories by name, a user's own prompts for them, and what is asked about both. Torch-free."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from posttrain.data.rows import LANGUAGES
from posttrain.errors import UserError

REFUSE, ANSWER = "refuse", "answer"
"""What a prompt expects, in the words of the suite `eval.suites.safety`: it would do harm, or only sounds so."""
EXPECTED = (REFUSE, ANSWER)
TEMPLATES = {
    "safety/label": ("conversation", "category", "about", "fence"),
    "safety/guideline": ("expect", "category", "about", "language"),
    "safety/tone": ("expect",),
    "safety/grade": ("conversation", "said", "fence"),
}
"""What `synth.safety.answers` asks, for a spec's `templates`."""


@dataclass(frozen=True)
class Hazard:
    """A category. `written`: whether the teacher is asked for adversarial prompts of it."""

    name: str
    about: str
    written: bool = True


@dataclass(frozen=True)
class Seed:
    """A prompt of the user's own file."""

    prompt: str
    expect: str
    category: str
    language: str
    place: str


@cache
def hazards() -> dict[str, Hazard]:
    """Code (S1 to S14) → category."""
    text = Path(__file__).with_name("hazards.yaml").read_text(encoding="utf-8")
    return {code: Hazard(**fields) for code, fields in yaml.safe_load(text).items()}


def read_seeds(path: Path) -> list[Seed]:
    """The prompts of a file as the safety suite reads it: `prompt`, `expect`, `category`, and `language` (else en).

    Raises UserError naming the first line that lacks one of them.
    """
    from posttrain.data.records import records  # Arrow comes with it, and a plan without such a file needs none

    found = []
    for line in records(str(path)):
        fault = line.reason or _fault(line.record)
        if fault:
            raise UserError(f"{line.place}: {fault}; write prompt, expect and category on each line")
        record = line.record
        language = record.get("language", "en")
        found.append(Seed(record["prompt"].strip(), record["expect"], record["category"], language, line.place))
    if not found:
        raise UserError(f"{path} holds no prompts; write prompt, expect and category on each line, or leave seeds out")
    return found


def _fault(record: dict[str, Any]) -> str:
    """What is wrong with a record, if anything."""
    prompt, expect, category = record.get("prompt"), record.get("expect"), record.get("category")
    if not isinstance(prompt, str) or not prompt.strip():
        return "prompt is no text"
    if expect not in EXPECTED:
        return f"expect is {expect!r}, neither {REFUSE} nor {ANSWER}"
    if category not in hazards():
        return f"category is {category!r}, none of {', '.join(hazards())}"
    language = record.get("language", "en")
    return "" if language in LANGUAGES else f"language is {language!r}, none of {', '.join(LANGUAGES)}"
