"""What annotation, scoring and selection ask of an answer: its message, what it equals, whether it is right."""

from posttrain.chat import Dialect, parse_message
from posttrain.chat.parse import USUAL
from posttrain.checks.calls import functions_of
from posttrain.checks.judge import text_of
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check, Message, Prompt, Response, canonical_json, content_id, flagged

RIGHT = 1.0
"""The verifier's grade of a right answer; every lower grade is wrong."""
CALL_CHECKS = ("tool_calls", "call_rules")
"""Checks that ask what was called; they see the calls of the whole way."""


def message_of(response: Response) -> Message:
    """The last message of a response, read in the dialect of the model that wrote it."""
    return said_like(response, response.text)


def messages_of(response: Response) -> tuple[Message, ...]:
    """All of a response: calls that were run, which are to be trained as well, and their results, then its last
    message."""
    return (*flagged(response.steps), message_of(response))


def text_of_all(response: Response) -> str:
    """All of a response for a reader: its text, below calls and results in turn where there were any."""
    told = [f"[{'tool' if step['role'] == 'tool' else 'call'}] {text_of(step)}" for step in response.steps]
    return "\n".join([*told, response.text.strip()])


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
    return None if prompt.check is None else grade(prompt.check, _graded(prompt.check, response)).value


def _graded(check: Check, response: Response) -> Message:
    """The last message; for a check of calls with all calls that were made before it."""
    last = message_of(response)
    if not response.steps or check.name not in CALL_CHECKS:
        return last
    made = [call for step in (*response.steps, last) for call in functions_of(step)]
    return {**last, "tool_calls": [{"type": "function", "function": call} for call in made]}


def is_whole(response: Response) -> bool:
    """Whether an answer ended by itself and says something."""
    return response.finish == "stop" and bool(response.text.strip())


def share_of(*parts: str) -> float:
    """A number in [0, 1) from the hash of the parts."""
    return int(content_id(*parts)[:12], 16) / 16**12
