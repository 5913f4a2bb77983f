"""A pipeline of prompts that a user wrote as one YAML file (`from: path/to/own.yaml`)."""

import math
from typing import Any

from posttrain.data.records import records
from posttrain.data.rows import Check, Message
from posttrain.errors import UserError
from synth.operators import Item, Work, ask, converse, different, in_language, judge, system, user, verify
from synth.pipelines.written_spec import WrittenFile, read_written
from synth.prompts import Wording

OVER_ASK = 1.3
"""Prompts asked for one that is wanted."""


def make(work: Work) -> None:
    """Seeds → the teacher's prompts → checks → answers, where the file wants them."""
    file, wordings = read_written(work.input("pipeline_file"))
    work.wordings |= wordings
    seeds = _seeds(work, file)
    for number, wanted in work.passes():
        count = math.ceil(OVER_ASK * wanted)
        drawn = seeds if count >= len(seeds) else work.rng("seeds", number).sample(seeds, count)
        each = math.ceil(count / len(drawn))
        items = [work.item({**seed, "seed": seed, "number": number}, file.language) for seed in drawn]
        items = ask(work, items, "prompt", into="prompts", n=each)
        items = [one for item in items for one in item.split("prompt", _listed(item["prompts"]))]
        if file.checks.language:
            items = in_language(work, items, "prompt")
        if file.checks.different:
            items = different(work, items, "prompt", work.known_texts(), file.checks.different)
        items = [item.plus(messages=_messages(item, wordings), check=_check(file, item)) for item in items]
        for item in _answered(work, items, file) if file.answer else items:
            prompt = work.prompt(item, item["messages"], check=item["check"])
            dialog = [work.row(item, [*prompt.messages, item["answer"]], parents=(prompt.id,))] if file.answer else []
            work.keep(item, prompt, dialog)


def _answered(work: Work, items: list[Item], file: WrittenFile) -> list[Item]:
    """The items with an answer that passes what the file asks."""
    items = converse(work, items, lambda item: item["messages"], into="answer", temperature=0.0)
    items = verify(work, items, "check", "answer")
    items = [item.plus(text=item["answer"].get("content") or "") for item in items]
    if file.checks.language:
        items = in_language(work, items, "text", "answer language")
    if file.checks.judge:
        items = judge(work, items, lambda item: work.prompt(item, item["messages"]), "answer", least=file.checks.judge)
    return items


def _seeds(work: Work, file: WrittenFile) -> list[dict[str, Any]]:
    if file.seeds:
        return list(file.seeds)
    path = work.input("seeds")
    found = list(records(str(path)))
    faulty = next((one for one in found if one.reason), None)
    if faulty or not found:
        raise UserError(f"{faulty.place}: {faulty.reason}" if faulty else f"{path} holds no seeds")
    return [one.record for one in found]


def _messages(item: Item, wordings: dict[str, Wording]) -> list[Message]:
    before = [system(wordings["system"].render(item["seed"]))] if "system" in wordings else []
    return [*before, user(item["prompt"])]


def _check(file: WrittenFile, item: Item) -> Check | None:
    return Check(file.check.name, _rendered(file.check.args, item["seed"])) if file.check else None


def _rendered(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return Wording(value, "check").render(variables)
    if isinstance(value, dict):
        return {key: _rendered(one, variables) for key, one in value.items()}
    return [_rendered(one, variables) for one in value] if isinstance(value, list) else value


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
