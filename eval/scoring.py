"""From a response to its grade, what was read of it, and why."""

from collections.abc import Sequence

from eval.scorers import SCORERS, Reading
from eval.table import Graded
from posttrain.checks.calls import functions_of
from posttrain.checks.numbers import last_number
from posttrain.checks.verdict import Verdict
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check, Message, Prompt, Response, canonical_json
from posttrain.engines.protocol import Reader


def graded_answers(prompts: Sequence[Prompt], responses: Sequence[Response], reader: Reader | None) -> list[Graded]:
    """Each response with its grade. Without a reader the text is the content of the message as it stands."""
    of_id = {prompt.id: prompt for prompt in prompts}
    found = []
    for response in responses:
        prompt = of_id[response.prompt_id]
        assert prompt.check is not None
        message = reader.message(response.text) if reader else {"role": "assistant", "content": response.text}
        verdict = grade(prompt.check, message, SCORERS)
        parts = verdict.parts if isinstance(verdict, Reading) else {}
        parsed = _parsed(prompt.check, message, verdict)
        found.append(Graded(prompt, response, verdict.value, verdict.reason, parsed, parts))
    return found


def _parsed(check: Check, message: Message, verdict: Verdict) -> str | None:
    """What was read of the answer; None where nothing could be: no number, no call where one is wanted, no text."""
    if isinstance(verdict, Reading):
        return verdict.parsed
    calls = functions_of(message)
    if check.name in ("tool_calls", "call_rules"):
        return canonical_json(calls) if calls else None if check.args["calls"] else message.get("content") or None
    text = (message.get("content") or "").strip()
    if calls:
        return None
    if check.name == "numeric":
        number = last_number(text)
        return None if number is None else str(number)
    return text or None
