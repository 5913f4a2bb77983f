"""What is on its way from a seed to a row, what has come of it, and whether that can be trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.chat.messages import checked, undeclared
from posttrain.data.rows import Message, Pair, Prompt, Row, Tool, content_id
from posttrain.errors import UserError


@dataclass(frozen=True)
class Item:
    """One thing on its way from a seed to a row. `values` are what templates read and what steps have found; `parents`
    ids of what it was made from; `made_by` says which model wrote what it holds, and how."""

    id: str
    values: Mapping[str, Any] = field(default_factory=dict)
    language: str = "en"
    parents: tuple[str, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def plus(self, **values: Any) -> "Item":
        """The same item with more values."""
        return replace(self, values={**self.values, **values})

    def split(self, into: str, many: Iterable[Any]) -> list["Item"]:
        """An item for each of many values, under the name `into`; each has an id of its own."""
        return [
            replace(self, id=content_id(self.id, into, place), values={**self.values, into: value})
            for place, value in enumerate(many)
        ]


@dataclass(frozen=True)
class Made:
    """What came of one item: a prompt, rows and pairs that stand or fall together."""

    language: str
    prompt: Prompt | None
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]

    @property
    def one(self) -> Prompt | Row | Pair:
        """What stands for all of it."""
        return self.prompt or (self.rows[0] if self.rows else self.pairs[0])

    @property
    def all(self) -> tuple[Prompt | Row | Pair, ...]:
        return (*((self.prompt,) if self.prompt else ()), *self.rows, *self.pairs)

    @property
    def id(self) -> str:
        return self.one.id

    @property
    def text(self) -> str:
        """What the user said last, in its prompt, or where it has none in its dialog."""
        return asked_in(self.one)


def asked_in(one: Prompt | Row | Pair) -> str:
    """What the user said last in it."""
    messages = one.prompt if isinstance(one, Pair) else one.messages
    said = [message for message in messages if message["role"] == "user"] or list(messages)
    return str(said[-1].get("content") or "")


def fault(made: Made) -> str:
    """Why it cannot be trained on, if so: a message that no template can say, or a call of an undeclared tool."""
    for row in made.rows:
        if reason := malformed(row.messages, row.tools):
            return reason
    for pair in made.pairs:
        chosen, rejected = pair.sides
        for side in (chosen, rejected):
            if reason := malformed((*pair.prompt, *side), pair.tools):
                return reason
        if chosen == rejected:
            return "pair of equal answers"
    return malformed(made.prompt.messages, made.prompt.tools) if made.prompt else ""


def malformed(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """Why a conversation cannot be rendered; empty where it can."""
    try:
        checked(messages, tools)
    except UserError:
        return "malformed"
    return "undeclared tool" if undeclared(messages, tools) else ""
