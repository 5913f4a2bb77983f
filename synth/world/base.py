"""What the four capabilities of the world share: specs, examples, the split by content.

A capability is a module with `draw` (a random spec), `state` (the spec as a user would say it), `build` (spec and user
text to a prompt with its check), `gold` (the right answer), `faithful` (does a text still state the spec?) and
`operator` (the variables of the operator prompt that asks a teacher for such a text). The check comes from the spec
alone, so a prompt a teacher worded has a check that does not depend on the teacher.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.data.rows import Message, Prompt, Tool, content_id

Spec = dict[str, Any]
"""JSON-able statement of one task: `capability`, `kind`, `level`, and what the kind needs."""

Split = Literal["train", "heldout"]
HELDOUT_PERCENT = 15


@dataclass(frozen=True)
class Example:
    """A prompt with the answer the world knows to be right."""

    prompt: Prompt
    gold: Message
    spec: Spec


@dataclass(frozen=True)
class Conversation:
    """Messages to train on with every assistant turn trained."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    last_only: bool = False


def split(prompt: Prompt) -> Split:
    """Which side a prompt is on: by the hash of what system, user and tools say, never by what the schemas are."""
    said = [str(message.get("content") or "") for message in prompt.messages if message["role"] != "assistant"]
    return "heldout" if int(content_id(said), 16) % 100 < HELDOUT_PERCENT else "train"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def calls(*functions: dict[str, Any]) -> Message:
    """An assistant message that calls `{"name", "arguments"}` functions."""
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": f} for f in functions]}


def one_of(rng: random.Random, *weighted: tuple[str, float]) -> str:
    """One of the names, with its weight."""
    return rng.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]
