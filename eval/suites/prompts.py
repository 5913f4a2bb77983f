"""A file of one's own: prompts with references, and the name of the scorer that compares answers with them."""

from collections.abc import Callable
from typing import Any

from eval.suites.making import Answering, Item, about, asks, called, file_items, reference, says, write_suite
from eval.suites.prompts_spec import PromptsConfig
from posttrain.data.conversation import messages_of, tools_of
from posttrain.data.records import Record
from posttrain.data.rows import Check, Message
from posttrain.stages import Job


def run(job: Job) -> None:
    config: PromptsConfig = job.config

    def of_record(record: Record) -> Item:
        check, gold = _check(record, config.scorer)
        tools = tools_of(record.get("tools"))
        language = str(record.get("language", "en"))
        return Item(conversation(record), check, gold, tools, language, about=about(record, "level"))

    write_suite(job, file_items(job, of_record), Answering("prompts", max_new_tokens=config.max_new_tokens))


def conversation(record: Record) -> tuple[Message, ...]:
    """The messages of a record: `messages`, or the text of `prompt` or `question`."""
    if record.get("messages"):
        found = messages_of(record["messages"], "messages")
        if found[-1]["role"] == "assistant":
            raise ValueError("messages ends with an assistant message; it must end before one")
        return found
    return asks(str(reference(record, "prompt", "question", "messages")))


def _check(record: Record, scorer: str) -> tuple[Check, Message | None]:
    """The record's own check, or that of the scorer and its reference, and the gold answer where that is plain."""
    own = record.get("check")
    if own is not None:
        check = Check(str(own["name"]), dict(own.get("args", {})))
        return check, says(str(record["reference"])) if record.get("reference") else None
    args, gold = SCORER_ARGS[scorer](reference(record, "reference", "answers", "answer"))
    return Check(scorer, args), gold


def _texts(given: Any) -> list[str]:
    return [str(one) for one in (given if isinstance(given, list) else [given])]


Made = tuple[dict[str, Any], Message | None]


def _answers(given: Any) -> Made:
    return {"answers": _texts(given)}, says(_texts(given)[0])


def _numeric(given: Any) -> Made:
    value = float(str(given).replace(",", ""))
    return {"answer": int(value) if value.is_integer() else value}, says(str(given))


def _needles(given: Any) -> Made:
    return {"needles": _texts(given)}, says(", ".join(_texts(given)))


def _recall(given: Any) -> Made:
    return {"answers": _texts(given)}, says(", ".join(_texts(given)))


def _choice(given: Any) -> Made:
    letter = str(given).strip().upper()
    return {"answer": letter, "letters": "ABCDEFGHIJ"}, says(letter)


def _calls(given: Any) -> Made:
    calls = [call.get("function", call) for call in (given if isinstance(given, list) else [given])]
    made = [{"name": call["name"], "arguments": call.get("arguments", call.get("parameters", {}))} for call in calls]
    return {"calls": made}, called(*((call["name"], call["arguments"]) for call in made))


def _tests(given: Any) -> Made:
    return {"tests": _texts(given)}, None


SCORER_ARGS: dict[str, Callable[[Any], Made]] = {
    "exact": _answers,
    "numeric": _numeric,
    "math": _answers,
    "needle": _needles,
    "recall": _recall,
    "short_answer": _answers,
    "choice": _choice,
    "tool_calls": _calls,
    "python_tests": _tests,
}
"""Scorer → its check's args from a reference, and the gold answer; None where a reference is no answer."""
