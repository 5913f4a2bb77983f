"""What every verifier takes and gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from posttrain.config import Config
from posttrain.data.rows import Message


@dataclass(frozen=True)
class Verdict:
    """`value` is 0.0 to 1.0, or None where the answer cannot be graded; `reason` is one short phrase for a reader."""

    value: float | None
    reason: str


RIGHT = Verdict(1.0, "right")
NOT_TEXT = Verdict(0.0, "a tool call where text was asked")


class Args(Config):
    """What a check's `args` must be: strictly typed, and nothing beside the named ones."""

    model_config = ConfigDict(strict=True)


@dataclass(frozen=True)
class Verifier:
    """A grader and the arguments it needs. The gold answer scores 1.0 and a wrong one 0.0."""

    Args: type[Args]
    grade: Callable[[Message, Any], Verdict]


def text_of(message: Message) -> str | None:
    """What a message says, blanks at its ends aside; None where it calls tools instead."""
    return None if message.get("tool_calls") else (message.get("content") or "").strip()
