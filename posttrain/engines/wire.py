"""OpenAI's chat and completion formats: our requests as bodies, a server's answers as completions."""

import json
import re
from collections.abc import Sequence
from typing import Any

from posttrain.chat.parse import PYTHON_TAG, USUAL, Dialect
from posttrain.data.rows import Message, Tool
from posttrain.data.shares import largest_remainder
from posttrain.endpoint import Endpoint
from posttrain.engines.http import Fault
from posttrain.engines.protocol import Completion, Finish, Request, Sampling, sample_seed
from posttrain.errors import UserError

FINISHES: dict[str, Finish] = {
    "stop": "stop", "tool_calls": "stop", "function_call": "stop", "eos_token": "stop",
    "length": "length", "content_filter": "refused",
}  # fmt: skip
"""A server's finish reasons (`eos_token` is TGI's). Any other, such as vLLM's `abort`, is no answer."""
CONTROL = re.compile(r"<\|[^|<>\s]{1,64}\|>|</?s>|<(?:bos|eos|pad|unk)>|</?(?:start|end)_of_turn>|\[/?INST\]|<<SYS>>")
"""What some server's tokenizer may read as a control token when it stands in a message."""
SEED_BITS = 31
"""llama.cpp and others take no more."""


def settings(endpoint: Endpoint, sampling: Sampling, request: Request, seed: int, n: int) -> dict[str, Any]:
    """The part of a body that both formats share."""
    shared: dict[str, Any] = {
        "model": endpoint.model,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature_of(request.seed),
        "top_p": sampling.top_p,
        "seed": seed % 2**SEED_BITS,
    }
    return shared | ({"n": n} if n > 1 else {})


def finished(body: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """The body with the recipe's `extra` fields; a null there takes a field out."""
    return {name: value for name, value in (body | endpoint.extra).items() if value is not None}


def messages_body(messages: Sequence[Message], tools: Sequence[Tool]) -> dict[str, Any]:
    """Messages and tools in OpenAI's form: arguments as JSON text, calls with ids that their results name."""
    sent: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for message in messages:
        role = "tool" if message["role"] == "ipython" else message["role"]
        one: dict[str, Any] = {"role": role, "content": _content(message)}
        if calls := message.get("tool_calls"):
            open_calls = [f"call_{len(sent)}_{number}" for number in range(len(calls))]
            one["tool_calls"] = [_call(call, name) for call, name in zip(calls, open_calls, strict=True)]
        elif role == "tool":
            one["tool_call_id"] = open_calls.pop(0) if open_calls else f"call_{len(sent)}"
        sent.append(one)
    return {"messages": sent, **({"tools": list(tools)} if tools else {})}


def _content(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)


def _call(call: dict[str, Any], name: str) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {"id": name, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def control_text(messages: Sequence[Message], tools: Sequence[Tool]) -> str | None:
    """The first piece of messages or tools that a server may read as a control token; None when there is none."""
    found = CONTROL.search(json.dumps([messages, tools], ensure_ascii=False))
    return found.group() if found else None


def completions(
    answer: dict[str, Any], request: Request, indexes: Sequence[int], logprobs: bool, dialect: Dialect | None = USUAL
) -> list[Completion]:
    """The completions of an answer, one for each index; they share the request's seed, that of the first. `dialect` is
    that of who will read their texts.

    Raises Fault for an answer without that shape, UserError when log-probs are wanted and not there.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
        texts = [_text(choice, dialect) for choice in choices]
        finishes = [FINISHES[choice["finish_reason"]] for choice in choices]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Fault(f"gave an answer that holds no completion ({error!r})") from None
    if not choices:
        raise Fault("gave an answer without choices")
    if len(choices) != len(indexes):
        raise UserError(
            f"{answer.get('model', 'the server')} gave {len(choices)} of {len(indexes)} answers to one request; "
            "set can: {n: false} on its model"
        )
    told = [_logprobs(choice) for choice in choices]
    if logprobs and not all(told):
        raise UserError(f"{answer.get('model', 'the server')} gives no log-probs; use an engine that does")
    usage = answer.get("usage") or {}
    counted = [len(choice.get("token_ids") or ()) or len(own) for choice, own in zip(choices, told, strict=True)]
    counts = counted if all(counted) else _shared(texts, int(usage.get("completion_tokens") or 0))
    return [
        Completion(
            request_id=request.id,
            index=index,
            text=texts[i],
            ids=tuple(choices[i].get("token_ids") or ()),
            logprob=sum(told[i]) if told[i] else None,
            finish=finishes[i],
            seed=sample_seed(request.seed, indexes[0]),
            tokens=counts[i],
            prompt_tokens=int(usage.get("prompt_tokens") or 0) if i == 0 else 0,
        )
        for i, index in enumerate(indexes)
    ]


def _text(choice: dict[str, Any], dialect: Dialect | None) -> str:
    """What the model wrote; tool calls that the server has read become the text that says them, after the words that
    came with them where the dialect has such."""
    if "text" in choice:
        return str(choice["text"])
    message = choice["message"]
    if not message.get("tool_calls"):
        return str(message.get("content") or "")
    calls = [
        {"name": call["function"]["name"], "parameters": json.loads(call["function"]["arguments"] or "{}")}
        for call in message["tool_calls"]
    ]
    text = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
    before = str(message.get("content") or "").strip()
    return f"{before}{PYTHON_TAG}{text}" if before and dialect == USUAL else text


def _logprobs(choice: dict[str, Any]) -> list[float]:
    """Log-probabilities of the generated tokens, from either format's shape; empty where there are none."""
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        return []
    if isinstance(found.get("content"), list):
        return [item["logprob"] for item in found["content"]]
    return list(found.get("token_logprobs") or ())


def _shared(texts: Sequence[str], total: int) -> list[int]:
    """The generated tokens that a server counted for all answers together, shared by length of text."""
    shares = largest_remainder({str(i): len(text) + 1.0 for i, text in enumerate(texts)}, total)
    return [shares[str(i)] for i in range(len(texts))]
