"""The checks of the preflight. Our renderer made the tokens and masks; transformers' own rendering judges them.

Cheap checks look at every row. The others render a row a second time, with the tokenizer as it will be saved beside the
weights, and so cost about as much again; they look at a sample and at every row that is easy to get wrong.
"""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from posttrain.chat import Renderer
from posttrain.chat.messages import undeclared
from posttrain.data.rows import Message, Pair, Tool
from posttrain.train.overlength import Example, parts

CHECKS = {
    "template": "the template of the checkpoint is the one used",
    "padding": "the padding token ends no turn and is not trained",
    "said": "the chat template can say every row",
    "length": "no row is longer than the limit",
    "bos": "there is exactly one BOS, in front",
    "trained": "something is trained in every row",
    "end_of_turn": "every trained turn ends with its end-of-turn token, trained",
    "pairs": "chosen and rejected differ and share their prompt",
    "tools": "every tool that is called is declared",
    "rendering": "transformers renders the same tokens",
    "prefix": "the prompt is a prefix of the conversation",
    "context": "no system, user or tool text is trained",
    "whole": "no token of a trained turn is cut or left out",
}
"""Name → what holds when it passes, in the order they are told."""
FIXED = re.compile(r"\{%- set (\w+) = \1 \| default\((.*)\) %\}\n")
"""How the template used fixes a variable, such as the date."""
REPLACED = "~"
"""Stands for control-token text when a row that holds some is rendered a second time."""

Span = tuple[int, int]


@dataclass
class Faults:
    """What failed: check → row id (empty where it is no row's) → why."""

    found: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, check: str, row_id: str, why: str) -> None:
        assert check in CHECKS, check
        self.found[check].setdefault(row_id, why)

    def __bool__(self) -> bool:
        return bool(self.found)


class Served:
    """What transformers makes of conversations with a tokenizer; `variables` are given to its template."""

    def __init__(self, tokenizer: Any, variables: dict[str, Any]):
        self.tokenizer, self.variables = tokenizer, variables
        added = tokenizer.added_tokens_decoder
        self.special = {number: token.content for number, token in added.items() if token.special}
        self._control = re.compile("|".join(map(re.escape, self.special.values())) or "(?!)")

    def ids(self, messages: Sequence[Message], tools: Sequence[Tool], ask: bool = False) -> list[int]:
        """Raises what the template raises."""
        builtin = [tool["type"] for tool in tools if tool.get("type", "function") != "function"]
        custom = [tool for tool in tools if tool.get("type", "function") == "function"]
        variables = {**self.variables, **({"builtin_tools": builtin} if builtin else {})}
        found: list[int] = self.tokenizer.apply_chat_template(
            [_plain(message) for message in messages], tools=custom or None, add_generation_prompt=ask,
            return_dict=False, **variables,
        )  # fmt: skip
        return found

    @property
    def begins_with_bos(self) -> bool:
        """Whether its plain text, or its chat, begins with a BOS; if so, every row has to."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and bos in (*self.tokenizer("x").input_ids, *self.ids(PROBE, ()))

    def holds_control_text(self, value: Any) -> bool:
        """Whether a control token's name stands in the text of messages or tools."""
        return bool(self._control.search(json.dumps(value, ensure_ascii=False)))

    def harmless(self, value: Any) -> Any:
        """The same messages or tools with the names of control tokens replaced."""
        if isinstance(value, str):
            return self._control.sub(REPLACED, value)
        if isinstance(value, dict):
            return {self.harmless(key): self.harmless(item) for key, item in value.items()}
        return [self.harmless(item) for item in value] if isinstance(value, list | tuple) else value


PROBE: tuple[Message, ...] = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"})


def served(renderer: Renderer) -> Served:
    """With the tokenizer that will be saved beside the weights, written to disk and read again as a server reads it."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        renderer.tokenizer.save_pretrained(folder)
        return Served(AutoTokenizer.from_pretrained(folder), {})


def _plain(message: Message) -> Message:
    """Without what is not there (some templates ask only whether a key is), and without what is ours."""
    kept = {key: value for key, value in message.items() if value is not None and key != "train"}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
    return kept | ({"role": "tool"} if kept["role"] == "ipython" else {})


def conversations(row: Any) -> list[list[Message]]:
    """A row's one conversation, or a pair's two, chosen first."""
    if isinstance(row, Pair):
        return [[*row.prompt, *side] for side in row.sides]
    return [list(row.messages)]


def check_model(judge: Served, renderer: Renderer, faults: Faults) -> None:
    """What holds for the tokenizer, whatever the rows are."""
    if judge.tokenizer.chat_template != renderer.tokenizer.chat_template:
        faults.add("template", "", "the chat template changes when the tokenizer is saved")
    if renderer.pad_id in (*renderer.stop_ids, judge.tokenizer.eos_token_id):
        name = judge.tokenizer.convert_ids_to_tokens(renderer.pad_id)
        faults.add("padding", "", f"it pads with {name}, which also ends a turn")


def check_template(init: str | Path, judge: Served, rows: Sequence[Any], faults: Faults) -> None:
    """The checkpoint's own template against the one used. Where their text differs (the one used has a fixed date, or
    markers of what is trained), both render the rows. A checkpoint without a template has nothing to compare."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(init))
    used = judge.tokenizer.chat_template
    if tokenizer.chat_template is None or tokenizer.chat_template == used:
        return
    own = Served(tokenizer, {name: json.loads(value) for name, value in FIXED.findall(used)})
    for row in rows:
        for messages in conversations(row):
            harmless, tools = judge.harmless(messages), judge.harmless(row.tools)
            try:
                same = own.ids(harmless, tools) == judge.ids(harmless, tools)
            except TemplateError as error:
                faults.add("template", row.id, f"that of {Path(init).name} cannot render it: {error}")
                return
            if not same:
                faults.add("template", row.id, f"that of {Path(init).name} renders it otherwise")
                return


def check_row(row: Any, example: Example, renderer: Renderer, bos: int | None, faults: Faults) -> None:
    """The cheap checks. `bos` is the token every conversation begins with, or None."""
    for number, (ids, trained) in enumerate(parts(example)):
        if bos is not None and (ids[:1] != [bos] or ids.count(bos) != 1):
            faults.add("bos", row.id, f"{ids.count(bos)} in the row" + ("" if ids[:1] == [bos] else ", none in front"))
        spans = list(runs(trained))
        if not spans:
            faults.add("trained", row.id, f"none of {len(ids):,} tokens is")
        elif spans[-1][1] - spans[-1][0] == 1 and number == 0:  # a rejected answer may be empty: that is its fault
            faults.add("trained", row.id, "the answer is empty, so that nothing but its end is")
        for start, end in spans:
            if renderer.pad_id in ids[start:end]:
                faults.add("padding", row.id, "a padding token is trained")
            if ids[end - 1] not in renderer.stop_ids:
                text = renderer.tokenizer.decode(ids[end - 1 : end + 1])
                faults.add("end_of_turn", row.id, f"a trained turn ends at {text!r}")
    if isinstance(row, Pair):
        _check_pair(row, example, faults)
    _check_tools(row, faults)


def runs(trained: Sequence[bool]) -> Iterator[Span]:
    """Begin and end of each run of trained tokens."""
    start = None
    for number, on in enumerate((*trained, False)):
        if on and start is None:
            start = number
        elif not on and start is not None:
            yield start, number
            start = None


def _check_pair(pair: Pair, example: Example, faults: Faults) -> None:
    (chosen, _), (rejected, _) = parts(example)
    if chosen == rejected:
        faults.add("pairs", pair.id, "both answers are the same tokens")
    prompts = [ids[: on.index(True)] for ids, on in parts(example) if True in on]
    if len(prompts) == 2 and prompts[0] != prompts[1]:
        faults.add("pairs", pair.id, "the two answers stand after different prompts")


def _check_tools(row: Any, faults: Faults) -> None:
    """A rejected answer may call what does not exist: that is what is wrong with it."""
    if unknown := undeclared(conversations(row)[0], row.tools):
        declared = [str(tool.get("function", tool).get("name", tool.get("type"))) for tool in row.tools]
        faults.add("tools", row.id, f"calls {unknown[0]}, declared are {', '.join(sorted(declared)) or 'none'}")


def check_rendering(row: Any, example: Example, judge: Served, faults: Faults) -> None:
    """The checks that render the row a second time."""
    hostile = judge.holds_control_text([*conversations(row), *row.tools])
    prompts: dict[int, list[int]] = {}
    for messages, (ids, trained) in zip(conversations(row), parts(example), strict=True):
        try:
            if hostile:
                again = _Again(judge.harmless(messages), judge.harmless(row.tools), judge, prompts)
                found = _judge_hostile(again, ids, trained)
            else:
                again = _Again(messages, row.tools, judge, prompts)
                found = _judge(again, ids, trained)
            for check, why in found:
                faults.add(check, row.id, why)
            prompts = {number: kept for number, kept in prompts.items() if number <= len(getattr(row, "prompt", ()))}
        except TemplateError as error:
            faults.add("rendering", row.id, f"transformers cannot render it: {error}")


class _Again:
    """A conversation rendered a second time; `prompts` keeps what the two answers of a pair share."""

    def __init__(
        self, messages: list[Message], tools: Sequence[Tool], judge: Served, prompts: dict[int, list[int]]
    ):  # fmt: skip
        self.messages, self.tools, self.judge, self.prompts = messages, tools, judge, prompts
        self.whole = judge.ids(messages, tools)
        self.turns: list[Span] = []
        """Where each assistant turn stands in the tokens."""
        self.broken: list[int] = []
        """Numbers of the assistant messages whose prompt is no prefix."""
        for number, message in enumerate(messages):
            if message["role"] == "assistant" and number:
                self._place(number)

    def _place(self, number: int) -> None:
        prompt = self.prompts.get(number)
        if prompt is None:
            prompt = self.prompts[number] = self.judge.ids(self.messages[:number], self.tools, ask=True)
        if self.whole[: len(prompt)] != prompt:
            self.broken.append(number)
            return
        upto = self.whole
        if number < len(self.messages) - 1:
            upto = self.judge.ids(self.messages[: number + 1], self.tools)
        self.turns.append((len(prompt), _common(self.whole, upto)))


def _judge(again: _Again, ids: list[int], trained: list[bool]) -> Iterator[tuple[str, str]]:
    """Check and reason of whatever transformers sees otherwise."""
    whole, decode = again.whole, again.judge.tokenizer.decode
    if ids != whole:
        same = _common(ids, whole)
        if same == len(ids):
            yield "whole", f"{len(whole) - same:,} of {len(whole):,} tokens are cut"
        else:
            here, there = decode(ids[same : same + 1]), decode(whole[same : same + 1])
            yield "rendering", f"token {same:,} is {here!r}, and {there!r} in transformers"
        return
    spans = list(runs(trained))
    if len(again.messages) - 1 in again.broken or (again.broken and len(spans) > 1):
        yield "prefix", f"rendered alone, the prompt before message {max(again.broken) + 1} reads otherwise"
        return
    for start, end in spans:
        turn = next(((a, b) for a, b in again.turns if a <= start < b), None)
        if turn is None or end > turn[1]:
            yield "context", f"{_short(decode(ids[start:end] if turn is None else ids[turn[1] : end]))} is trained"
        elif start > turn[0]:
            yield "whole", f"{_short(decode(ids[turn[0] : start]))} of a trained turn is not trained"


def _judge_hostile(again: _Again, ids: list[int], trained: list[bool]) -> Iterator[tuple[str, str]]:
    """A row whose text names control tokens, against the same row with the names replaced: both must have the same
    control tokens, and as many of them before and in each trained turn."""
    special = again.judge.special

    def controls(tokens: list[int]) -> list[int]:
        return [token for token in tokens if token in special]

    if controls(ids) != controls(again.whole):
        yield "rendering", "text that reads like a control token became one"
        return
    places = {tuple(len(controls(again.whole[:end])) for end in turn) for turn in again.turns}
    for start, end in runs(trained):
        if (len(controls(ids[:start])), len(controls(ids[:end]))) not in places:
            text = again.judge.tokenizer.decode(ids[start:end])
            yield "context", f"{_short(text)} is trained, and is no assistant's turn"


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "…")
