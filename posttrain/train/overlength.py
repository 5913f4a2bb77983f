"""Rows longer than the limit: an explicit policy per source, and a ledger of what was done with them.

`error` names them and stops, `drop` leaves them out, `truncate_context` cuts their oldest turns. Nothing else in this
project ever cuts a token of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.data.rows import Message, Pair, Row
from posttrain.errors import UserError
from posttrain.train.batches import IGNORED, length
from posttrain.train.settings import OTHERS, OverLength

Example = dict[str, Any]
Render = Callable[[Any], Example]
"""A row or pair → its rendered example, as `posttrain.train.batches` makes them."""
SIDES = ("chosen", "rejected")


@dataclass
class Entry:
    """What came of one source's rows. Counts of pairs where pairs are trained; a pair's tokens are those of both
    its conversations, and its length that of the longer one."""

    source: str
    policy: OverLength
    rows: int = 0
    """As they came."""
    over_length: int = 0
    dropped: int = 0
    truncated: int = 0
    tokens_dropped: int = 0
    """All tokens of the rows that were dropped."""
    tokens_cut: int = 0
    """Context tokens cut from the rows that were truncated."""
    tokens: int = 0
    """Of the rows that are trained on, as they are trained on."""
    trained_tokens: int = 0
    longest: int = 0
    """Tokens of the longest row, before anything was done."""


@dataclass
class Fitted:
    """The rows that are trained on with their examples, the ledger, and the rows the policy refuses."""

    rows: list[Any] = field(default_factory=list)
    """As trained: truncated ones have fewer messages and keep their id."""
    examples: list[Example] = field(default_factory=list)
    ledger: dict[str, Entry] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    truncated: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    """Row id → why it is longer than may be."""
    unsaid: dict[str, str] = field(default_factory=dict)
    """Row id → why the template cannot say it; these rows are left out."""


def fit(rows: Sequence[Any], render: Render, limit: int, policies: Mapping[str, OverLength]) -> Fitted:
    """Render every row, and deal with those of more than `limit` tokens as the policy of their source says.

    Refused rows stay among `rows`, so that they can be shown.
    """
    fitted = Fitted()
    for source in policies:
        if source != OTHERS:
            fitted.ledger[source] = Entry(source, policies[source])
    for row in rows:
        entry = fitted.ledger.setdefault(row.source, Entry(row.source, policies.get(row.source, _others(policies))))
        _place(row, render, limit, entry, fitted)
    return fitted


def _others(policies: Mapping[str, OverLength]) -> OverLength:
    return policies.get(OTHERS, "error")


def _place(row: Any, render: Render, limit: int, entry: Entry, fitted: Fitted) -> None:
    entry.rows += 1
    try:
        example = render(row)
    except UserError as error:
        fitted.unsaid[row.id] = str(error).removeprefix(f"row {row.id}: ")
        return
    whole, tokens = length(example), token_count(example)
    entry.longest = max(entry.longest, whole)
    if whole > limit:
        entry.over_length += 1
        if entry.policy == "drop":
            entry.dropped += 1
            fitted.dropped.add(row.id)
            entry.tokens_dropped += tokens
            return
        shorter = truncated(row, render, limit) if entry.policy == "truncate_context" else None
        if shorter is None:
            advice = "" if entry.policy == "error" else ", also without the turns before the last question"
            fitted.refused[row.id] = f"{whole:,} tokens{advice}"
        else:
            row, example = shorter
            entry.truncated += 1
            entry.tokens_cut += tokens - token_count(example)
            fitted.truncated.add(row.id)
    entry.tokens += token_count(example)
    entry.trained_tokens += sum(sum(trained) for _, trained in parts(example))
    fitted.rows.append(row)
    fitted.examples.append(example)


def parts(example: Example) -> list[tuple[list[int], list[bool]]]:
    """Ids and whether each is trained, of a row's one conversation or of a pair's two."""
    if "input_ids" in example:
        return [(example["input_ids"], [label != IGNORED for label in example["labels"]])]
    return [(example[f"{side}_ids"], [value > 0 for value in example[f"{side}_mask"]]) for side in SIDES]


def token_count(example: Example) -> int:
    return sum(len(ids) for ids, _ in parts(example))


def trained_ids(example: Example) -> list[list[int]]:
    """The trained tokens alone, conversation by conversation."""
    return [[token for token, on in zip(ids, trained, strict=True) if on] for ids, trained in parts(example)]


def truncated(row: Any, render: Render, limit: int) -> tuple[Any, Example] | None:
    """The row without as few of its oldest exchanges as make it fit, and its example; None where none do.

    The system turn stays, exchanges go whole (so a tool's result never stands without its call), the last one with the
    answer stays, and a cut that would take a trained token is none: the trained tokens are compared.
    """
    head, exchanges = split(_context(row))
    wanted = trained_ids(render(row))
    first, last = 1, len(exchanges) - 1
    found = None
    while first <= last:
        cut = (first + last) // 2
        shorter = _with_context(row, (*head, *(message for group in exchanges[cut:] for message in group)))
        example = render(shorter)
        if trained_ids(example) != wanted:
            last = cut - 1
        elif length(example) > limit:
            first = cut + 1
        else:
            found, last = (shorter, example), cut - 1
    return found


def split(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """System messages in front, and exchanges: each begins with a user message to which no tool result is pending."""
    head: list[Message] = []
    exchanges: list[list[Message]] = []
    pending = 0
    for message in messages:
        if not exchanges and message["role"] == "system":
            head.append(message)
            continue
        if message["role"] == "assistant":
            pending = len(message.get("tool_calls") or ())
        elif message["role"] in ("tool", "ipython"):
            pending -= 1
        if not exchanges or (message["role"] == "user" and pending <= 0):
            exchanges.append([])
        exchanges[-1].append(message)
    return head, exchanges


def _context(row: Any) -> Sequence[Message]:
    messages: Sequence[Message] = row.prompt if isinstance(row, Pair) else row.messages
    return messages


def _with_context(row: Any, messages: tuple[Message, ...]) -> Any:
    """The same row, id included, with other messages."""
    assert isinstance(row, Pair | Row)
    return replace(row, prompt=messages) if isinstance(row, Pair) else replace(row, messages=messages)
