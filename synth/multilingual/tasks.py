"""NLP tasks and parallel text as dialogs: records in, items with messages out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from posttrain.chat import CONTROL_TOKENS
from posttrain.data.records import records
from posttrain.data.rows import LANGUAGES, Message
from posttrain.errors import UserError
from synth.multilingual.matching import matches, unlike
from synth.multilingual.phrases import PHRASES
from synth.operators import Item, Work, says, user

LETTERS = "ABCDEFGHIJ"
PARALLEL = ("source", "source_language", "target", "target_language")
TASK = ("question", "answer", "language")


def read_tasks(work: Work, path: Path) -> Iterator[Item]:
    """An item for each record: `messages`, `question` and `told` (the answer's text that tells its language), and
    `fault`, why it cannot be used. Raises UserError, with file and line, for a record that is neither kind of task."""
    for found in records(str(path)):
        record = found.record
        names = PARALLEL if "source" in record else TASK
        lacking = [name for name in names if not isinstance(record.get(name), str) or not record[name].strip()]
        if found.reason or lacking:
            raise UserError(f"{found.place}: {found.reason or f'lacks the text {lacking[0]!r}'}; see `tasks:`")
        language = record["target_language" if names is PARALLEL else "language"]
        rng = work.rng("wording", found.place)
        document = work.document(found.text or str(record), found.place, language, path.name)
        item = work.item({"place": found.place}, language, [document])
        if language not in LANGUAGES:
            yield item.plus(messages=[], question="", told="", fault="")  # left out as a language that is not wanted
            continue
        messages, told, fault = (_parallel if names is PARALLEL else _task)(rng, record)
        yield item.plus(messages=messages, question=messages[0]["content"], told=told, fault=_hostile(record) or fault)


def _parallel(rng: Random, record: Mapping[str, Any]) -> tuple[list[Message], str, str]:
    """A user of the target language asks for a translation."""
    asks = rng.choice(PHRASES[record["target_language"]].into)
    fault = unlike(record["source"], record["target"])
    if not fault and record["source_language"] in LANGUAGES:
        fault = "" if matches(record["source"], record["target"]) else "not translated"
    return [user(f"{asks}\n\n{record['source']}"), says(record["target"])], record["target"], fault


def _task(rng: Random, record: Mapping[str, Any]) -> tuple[list[Message], str, str]:
    """A question, with choices or without, on a text or alone; the choices are shuffled."""
    phrases = PHRASES[record["language"]]
    question, answer = record["question"], record["answer"]
    parts = [f"{rng.choice(phrases.read)}\n\n{record['text']}"] if record.get("text") else []
    choices = [str(choice) for choice in record.get("choices") or []]
    if not choices:
        messages = [user("\n\n".join([*parts, question])), says(answer)]
        return messages, f"{question}\n{answer}", ""
    if choices.count(answer) != 1 or len(choices) > len(LETTERS):
        return [user(question)], question, "answer is not one of the choices"
    rng.shuffle(choices)
    listed = "\n".join(f"{LETTERS[place]}. {choice}" for place, choice in enumerate(choices))
    asked = "\n\n".join([*parts, f"{question}\n\n{listed}", rng.choice(phrases.choose)])
    told = phrases.answer.format(letter=LETTERS[choices.index(answer)], text=answer)
    return [user(asked), says(told)], question, ""


def _hostile(record: Mapping[str, Any]) -> str:
    return "control tokens" if any(token in str(record) for token in CONTROL_TOKENS) else ""
