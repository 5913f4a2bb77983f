"""What annotation, scoring and selection ask of an answer: its message, what it equals, whether it is right."""

from posttrain.chat import Dialect, parse_message
from posttrain.chat.parse import USUAL
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Message, Prompt, Response, canonical_json, content_id

RIGHT = 1.0
"""The verifier's grade of a right answer; every lower grade is wrong."""


def message_of(response: Response) -> Message:
    """The assistant message a response says, read in the dialect of the model that wrote it."""
    return said_like(response, response.text)


def said_like(response: Response, text: str) -> Message:
    """The assistant message that a text says when it is written as the model of a response writes."""
    return parse_message(text, dialect_of(response))


def dialect_of(response: Response) -> Dialect:
    """The dialect of the model that wrote a response."""
    dialect: Dialect = response.made_by.get("dialect", USUAL)
    return dialect


def answer_key(response: Response) -> str:
    """One text for answers that say the same: calls equal as JSON values, or text equal but for blanks at its ends."""
    message = message_of(response)
    calls = message.get("tool_calls")
    return canonical_json([call["function"] for call in calls] if calls else str(message.get("content") or "").strip())


def grade_of(prompt: Prompt, response: Response) -> float | None:
    """What the prompt's check says of a response; None without a check or a grade."""
    return None if prompt.check is None else grade(prompt.check, message_of(response)).value


def is_whole(response: Response) -> bool:
    """Whether an answer ended by itself and says something."""
    return response.finish == "stop" and bool(response.text.strip())


def share_of(*parts: str) -> float:
    """A number in [0, 1) from the hash of the parts."""
    return int(content_id(*parts)[:12], 16) / 16**12
