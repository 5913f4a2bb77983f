"""Operators that ask a model: a template or a conversation for each item, one answer or several.

Answers are journaled one by one (of a local engine by chunk), so a killed stage asks only what it lacks. What did not
end by itself, is empty, repeats the question or writes control tokens is dropped and counted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from posttrain.chat import CONTROL_TOKENS, parse_message
from posttrain.chat.messages import undeclared
from posttrain.chat.parse import USUAL
from posttrain.data.rows import Message, Prompt, Response, Tool
from posttrain.engines.answers import answer_prompts
from posttrain.engines.dialogs import Dialog, Reply
from posttrain.engines.dialogs import hold as hold_dialogs
from posttrain.engines.protocol import Engine, Sampling
from synth.operators.bill import Bill
from synth.operators.items import Item
from synth.operators.work import TEACHER, Work

UNFINISHED = {"length": "cut", "too_long": "too long for the model", "refused": "refused by the server"}
"""Why a text that did not end by itself is dropped."""
CALLS_WITHOUT_END = "calls without end"
ECHO_CHARACTERS = 40
"""A shorter line of a template may stand in an answer by chance."""
PYTHON_TAG = "<|python_tag|>"
SHOWN_MESSAGES = 4
"""Of a dialog that is dropped: the last ones are kept to look at."""
Temperature = float | tuple[float, float]


def ask(
    work: Work, items: Sequence[Item], template: str, into: str, *, n: int = 1, temperature: Temperature | None = None,
    max_new_tokens: int | None = None, model: str = TEACHER, step: str = "", draws: str = "",
) -> list[Item]:  # fmt: skip
    """Put a template, with each item's values and `item_language`, to a model; its text comes into `into`.

    With n > 1 a list of the usable texts; an item without any is dropped. `temperature` and `max_new_tokens` are the
    stage's where None; a range draws one for each item. `step` names it in the report, else the template's name does.
    """
    step = step or template.rpartition("/")[2]
    wording = work.wording(template)
    own = wording.own_lines(ECHO_CHARACTERS)
    requests = {item.id: _request(work, item, [user(wording.render(item.values))]) for item in items}
    sampling = _sampling(work, n, temperature, max_new_tokens)
    answered = _answers(work, requests, items, sampling, model, step, draws)
    kept = []
    for item in items:
        texts = []
        for response in answered[item.id]:
            squeezed = " ".join(response.text.split())
            reason = fault(response) or ("prompt echo" if any(line in squeezed for line in own) else "")
            if reason:
                work.drop(item, step, reason, response.text)
            else:
                texts.append(response)
        said = [response.text.strip() for response in texts]
        kept += _with(work, item, step, into, texts, said, n)
    return kept


def converse(
    work: Work, items: Sequence[Item], messages: Callable[[Item], Sequence[Message]], into: str, *,
    tools: Callable[[Item], Sequence[Tool]] = lambda item: (), n: int = 1, temperature: Temperature | None = None,
    max_new_tokens: int | None = None, model: str = TEACHER, step: str = "answer",
) -> list[Item]:  # fmt: skip
    """Let a model answer each item's conversation; the assistant's message comes into `into`, with n > 1 a list.

    Besides what `ask` drops: an answer that only repeats the last message, calls a tool that is not among the item's,
    or is a call only in another template's words.
    """
    requests = {item.id: _request(work, item, messages(item), tools(item)) for item in items}
    sampling = _sampling(work, n, temperature, max_new_tokens)
    answered = _answers(work, requests, items, sampling, model, step)
    engine = work.engine(model)
    kept = []
    for item in items:
        said = []
        for response in answered[item.id]:
            message, reason = message_of(requests[item.id], response, engine)
            if reason:
                work.drop(item, step, reason, response.text)
            else:
                said.append((response, message))
        kept += _with(work, item, step, into, [one for one, _ in said], [message for _, message in said], n)
    return kept


def message_of(request: Prompt, response: Response, engine: Engine) -> tuple[Message, str]:
    """The message that a response says, and why it cannot be used, if so."""
    message = engine.renderer.message(response.text)
    reason = fault(response)
    if reason:
        return message, reason
    if response.text.strip() == str(request.messages[-1].get("content") or "").strip():
        return message, "prompt echo"
    if undeclared([message], request.tools):
        return message, "undeclared tool"
    if "tool_calls" not in message and "tool_calls" in parse_message(message["content"], USUAL):
        return message, "call of another template"
    return message, ""


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def told(messages: Sequence[Message]) -> str:
    """A conversation as text for a template."""
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def fault(response: Response) -> str:
    """Why a text is of no use: unfinished, empty, or with control tokens, which no answer's text may hold."""
    if response.finish != "stop":
        return UNFINISHED[response.finish]
    if not response.text.strip():
        return "empty"
    body = response.text.replace(PYTHON_TAG, "")
    return "control tokens" if any(token in body for token in CONTROL_TOKENS) else ""


def _request(work: Work, item: Item, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
    return Prompt(tuple(messages), work.capability, item.language, tools=tuple(tools))


def _sampling(work: Work, n: int, temperature: Temperature | None, max_new_tokens: int | None) -> Sampling:
    config = work.job.config
    chosen = config.temperature if temperature is None else temperature
    return Sampling(n, chosen, config.top_p, max_new_tokens or config.max_new_tokens)


def _answers(
    work: Work, requests: Mapping[str, Prompt], items: Sequence[Item], sampling: Sampling, model: str, step: str,
    draws: str = "",
) -> dict[str, list[Response]]:  # fmt: skip
    """Item id → its responses. Items that ask the same share the answers."""
    for item in items:
        work.tally(step, item.language).came += 1
    if not work.can_ask(items, step):
        return {item.id: [] for item in items}
    distinct = {prompt.id: prompt for prompt in requests.values()}
    found: dict[str, list[Response]] = {}
    for response in put(work, list(distinct.values()), sampling, model, step, draws=draws):
        found.setdefault(response.prompt_id, []).append(response)
    return {item.id: found.get(requests[item.id].id, []) for item in items}


def put(
    work: Work, prompts: Sequence[Prompt], sampling: Sampling, model: str, step: str, journal: str = "", draws: str = ""
) -> list[Response]:  # fmt: skip
    """Put different prompts to a model: journaled under `journal` or the step's name, metered, and booked."""
    bill = Bill(work.engine(model))
    with work.meter.asking(work, step, len(prompts) * sampling.n):
        responses = answer_prompts(
            work.job, work.engine(model), prompts, sampling, work.job.config.chunk, work.model_name(model),
            work.journal(journal or step), draws,
        )  # fmt: skip
    language = {prompt.id: prompt.language for prompt in prompts}
    for response in responses:
        bill.wrote(work.tally(step, language[response.prompt_id]), 1, response.tokens)
    bill.settle()
    return responses


def _with(
    work: Work, item: Item, step: str, into: str, responses: Sequence[Response], said: Sequence[object], n: int
) -> list[Item]:  # fmt: skip
    """The item with what was answered, or nothing where that is nothing."""
    if not responses:
        return []
    work.tally(step, item.language).left += 1
    made_by = {**responses[0].made_by, "operator": step}
    return [replace(item.plus(**{into: list(said) if n > 1 else said[0]}), made_by=made_by)]


def hold(
    work: Work, items: Sequence[Item], messages: Callable[[Item], Sequence[Message]], reply: Callable[[Item], Reply],
    into: str, *, tools: Callable[[Item], Sequence[Tool]] = lambda item: (), temperature: Temperature | None = None,
    max_new_tokens: int | None = None, model: str = TEACHER, most: int = 8, step: str = "dialog",
) -> list[Item]:  # fmt: skip
    """Let a model speak in turn with what `reply(item)` answers it (results of its calls, a user's next turn), all
    dialogs side by side; what was said after the item's messages comes into `into`.

    Besides what `converse` drops: a dialog with `most` messages of the model in a row that end with calls. Of items
    that say the same, the last is held.
    """
    requests = {item.id: _request(work, item, messages(item), tools(item)) for item in items}
    of_prompt = {requests[item.id].id: item for item in items}
    items = list(of_prompt.values())
    for item in items:
        work.tally(step, item.language).came += 1
    if not work.can_ask(items, step):
        return []
    sampling, bill = _sampling(work, 1, temperature, max_new_tokens), Bill(work.engine(model))
    with work.meter.asking(work, step, len(items)):
        dialogs = hold_dialogs(
            work.job, work.engine(model), [requests[item.id] for item in items],
            lambda prompt: reply(of_prompt[prompt.id]), sampling, chunk=work.job.config.chunk,
            model=work.model_name(model), journal=work.journal(step), most=most,
        )  # fmt: skip
    found = {dialog.prompt.id: dialog for dialog in dialogs}
    kept = []
    for item in items:
        dialog = found[requests[item.id].id]
        written = sum(one["role"] == "assistant" for one in dialog.said)
        bill.wrote(work.tally(step, item.language), written, dialog.tokens)
        reason = _dialog_fault(dialog)
        if reason:
            work.drop(item, step, reason, json.dumps(dialog.said[-SHOWN_MESSAGES:], ensure_ascii=False))
        else:
            kept += _with(work, item, step, into, [dialog.first], [list(dialog.said)], 1)
    bill.settle()
    return kept


def _dialog_fault(dialog: Dialog) -> str:
    """Why a dialog is of no use: one of its messages is, or it would go on calling."""
    if dialog.given_up:
        return UNFINISHED.get(dialog.given_up, CALLS_WITHOUT_END)
    own = [message for message in dialog.said if message["role"] == "assistant"]
    for message in own:
        text = str(message.get("content") or "")
        if not text.strip() and not message.get("tool_calls"):
            return "empty"
        if any(token in text.replace(PYTHON_TAG, "") for token in CONTROL_TOKENS):
            return "control tokens"
        if "tool_calls" not in message and "tool_calls" in parse_message(text, USUAL):
            return "call of another template"
    return "undeclared tool" if undeclared(own, dialog.prompt.tools) else ""
