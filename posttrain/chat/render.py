"""The one renderer: messages → token ids and loss mask, grown together.

Everything that is trained, sampled, scored or shown goes through here, with the chat template that is saved with the
checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from posttrain.chat.dialects import dialect_of, named_template
from posttrain.chat.encode import Encoder, Rendered
from posttrain.chat.messages import checked, is_trained, split_tools
from posttrain.chat.parse import PYTHON_TAG, Parsed, parse
from posttrain.chat.template import CLOSE, OPEN, compile_template, unguard
from posttrain.chat.tokenizer import EOM, EOT, PADS
from posttrain.chat.twins import keeps_prefix, usable_template
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Train = Literal["last", "all", "flagged"]
"""Which assistant turns are trained: the last one (with those before it whose message says `train: true`), all, or
those whose message has no `train: false`."""

_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "Hello,  1 2\n\n x"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "12.5 is\nall"},
)


class Renderer:
    """Renders conversations with a tokenizer's own chat template, and reads generated text back.

    `eot_id` ends an assistant turn, `stop_ids` is all that ends one (also `<|eom_id|>` where the tokenizer has it),
    `pad_id` is another token than these; `dialect` is the way of writing calls, None for templates that are not
    Llama's. `tokenizer` is the one given, with the template that is used and the padding token: saved, it makes others
    render the same. Raises UserError when the tokenizer has no template, neither generation markers nor a marked twin,
    or no padding token of its own, and when the template prints today's date, writes two BOS, trains no end of turn,
    breaks the prompt's prefix, or gives other ids here than in `apply_chat_template`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, date: str | None = None, tools_in: Literal["user", "system"] = "user"
    ):
        self.tokenizer = tokenizer
        self._where = str(tokenizer.name_or_path or "the tokenizer")
        self._template_name = f"the chat template of {self._where}"
        self._source = usable_template(tokenizer.chat_template, self._where, date, tools_in)
        self._template = compile_template(self._source)
        self.dialect = dialect_of(self._source)
        self._words = frozenset(re.findall(r"\w+", self._source))
        self._variables: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._encoder = Encoder(tokenizer)
        self._control, self._guard = self._encoder.control, self._encoder.guard
        self._check_control_tokens()
        self._safe_tag = self._guard(PYTHON_TAG)
        self._late_header = ""
        self._late_header = self._find_late_header()
        # Our template and the stock ones write message after message; others are looked at row by row.
        self._keeps_prefix = self.dialect is not None and keeps_prefix(self._source)
        self.eot_id = self._find_eot()
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([self.eot_id, self._control.get(EOM, self.eot_id)]))
        self.pad_id = self._find_pad()
        tokenizer.chat_template = self._source
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.pad_id)
        self._check_against_transformers()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        template: str | None = None,
        date: str | None = None,
        tools_in: Literal["user", "system"] = "user",
    ) -> Renderer:
        """The renderer of a checkpoint folder or hub name.

        `template` is one of TEMPLATES, in place of the tokenizer's own or for a base model that has none; turns then
        end with `<|eot_id|>`. `date` is what the template prints as today, `tools_in` the turn that lists tools with a
        schema. Raises UserError when there is no usable fast tokenizer.
        """
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path))
        except Exception as error:  # a broken file makes the library raise whatever it stumbles over
            known = isinstance(error, (OSError, ValueError)) and str(error).strip()
            why = known.splitlines()[0] if known else repr(error)
            mend = "name a folder with a whole tokenizer.json"
            if not Path(path).is_dir():
                mend = "check the name and the network, or " + mend
            raise UserError(f"no tokenizer in {path} ({why}); {mend}") from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"the tokenizer of {path} is not a fast one; convert it and save its tokenizer.json")
        if template is not None:
            tokenizer.chat_template = named_template(template)
            if EOT in tokenizer.get_vocab():
                tokenizer.eos_token = EOT
        return cls(tokenizer, date, tools_in)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Ids up to where the assistant is to speak (the header and its blank line stand at the end).

        A last message of the assistant's with `prefix: true` is how the answer begins: the ids go on with its text, and
        the model goes on from there. Raises UserError for messages the template cannot say, and when the last message
        is an answer of the assistant's.
        """
        if messages and messages[-1].get("role") == "assistant":
            if not messages[-1].get("prefix"):
                raise UserError("a prompt ends with an assistant message; leave the answer off")
            return self.prompt(messages[:-1], tools) + self.ids(str(messages[-1]["content"]))
        ready, variables = self._ready(messages, tools)
        text = self._text(ready, variables, ask=True)
        self._check_spans(text, ready)
        return self._encoder.rendered(text, (), self.stop_ids).ids

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool] = (), train: Train = "last") -> Rendered:
        """Ids and mask of a conversation whose last message is the assistant's answer.

        `train` says which assistant turns are trained. The prompt before each of them is a prefix of the ids. Raises
        UserError for messages the template cannot say, for a template that breaks the prefix, and when no turn is
        trained.
        """
        if not messages or messages[-1].get("role") != "assistant":
            raise UserError("a conversation to train on does not end with the assistant; add the answer")
        ready, variables = self._ready(messages, tools)
        text = self._text(ready, variables)
        turns = self._check_spans(text, ready)
        trained = _trained_spans(messages, turns, train)
        if turns[trained[0]] == 0:
            raise UserError("a conversation begins with an answer to train on; put the prompt before it")
        if not self._keeps_prefix:
            before = text.split(OPEN)
            for span in trained:
                if OPEN.join(before[: span + 1]) != self._text(ready[: turns[span]], variables, ask=True):
                    raise UserError(f"with {self._template_name} the prompt is no prefix of the conversation; mend it")
        return self._encoder.rendered(text, trained, self.stop_ids)

    def ids(self, text: str) -> list[int]:
        """The ids of text alone, in which the names of control tokens are text."""
        return self._encoder.rendered(self._guard(text), (), self.stop_ids).ids

    def parse(self, text: str) -> Parsed:
        """The assistant message that generated text (without its end of turn) says; see `posttrain.chat.parse`."""
        return parse(text, self.dialect or "posttrain")

    def message(self, text: str) -> Message:
        """The message of `parse`, for those who grade text that is nearly a call as text."""
        return self.parse(text).message

    def text(self, message: Message, tools: Sequence[Tool] = ()) -> str:
        """What the model is to write for an assistant message, without the end of turn; `message` reads it back."""
        assert message["role"] == "assistant", message["role"]
        ready, variables = self._ready([_PROBE[0], message], tools)
        marked = self._text(ready, variables)
        self._check_spans(marked, ready)
        return self._written(_spans(marked)[-1])

    def _ready(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], dict[str, Any]]:
        """Checked and guarded messages, and the template's variables for the tools."""
        builtin, custom = split_tools(tools)
        ready = checked(messages, custom)
        self._check_can_say(ready, builtin, custom)
        variables: dict[str, Any] = {"tools": self._guard(custom) or None}
        if builtin:
            variables["builtin_tools"] = builtin
        return self._guard(ready), variables

    def _check_can_say(self, messages: list[Message], builtin: list[str], custom: list[Tool]) -> None:
        """Refuse what the template would drop without a word."""
        lacks = [word for word, there in (("tools", custom), ("builtin_tools", builtin)) if there]
        for message in messages:
            lacks += ["tool_calls"] if "tool_calls" in message else ["tool"] if message["role"] == "tool" else []
        for word in lacks:
            if word not in self._words:
                raise UserError(f"{self._template_name} has no {word}; name another template, or leave these rows out")

    def _text(self, messages: list[Message], variables: dict[str, Any], ask: bool = False) -> str:
        """Marked text of guarded messages; with `ask`, the assistant's header at the end."""
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=ask, **{**self._variables, **variables}
            )
        except (TemplateError, TypeError) as error:
            raise UserError(f"{self._template_name} cannot render a conversation: {error}") from error
        late = self._late_header
        return text.replace(OPEN + late, late + OPEN) if late else text

    def _check_spans(self, text: str, messages: list[Message]) -> list[int]:
        """Numbers of the assistant messages, which are those of the spans; each of them reads back as it is."""
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = _spans(text)
        if len(spans) != len(turns):
            raise UserError(f"{self._template_name} marks {len(spans)} of {len(turns)} assistant turns; mend it")
        for turn, span in zip(turns, spans, strict=True):
            message = messages[turn]
            said = message.get("content") or ""
            if self.dialect is None:
                if "tool_calls" in message and said.strip() not in span:
                    raise UserError(
                        f"{self._template_name} drops the text beside a call; drop it in the row or the call"
                    )
            elif "tool_calls" in message or said.lstrip()[:1] in ("{", "[") or self._safe_tag in said:
                self._check_reads_back(message, self._written(span))
        return turns

    def _check_reads_back(self, message: Message, text: str) -> None:
        """Refuse a message whose text says something else: a call that is bent, or content that reads as a call."""
        found = self._guard(parse(text, self.dialect or "posttrain").message)
        calls = [call["function"] for call in message.get("tool_calls", ())]
        read = [call["function"] for call in found.get("tool_calls", ())]
        wanted = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
        if (
            json.dumps(read) == json.dumps(wanted)
            and found["content"].strip() == (message.get("content") or "").strip()
        ):
            return
        if not calls:
            raise UserError(f"the text of an answer reads as a call of {read[0]['name']}; give it as tool_calls")
        beside = " with text beside it" if message.get("content") else ""
        raise UserError(
            f"{self._template_name} ({self.dialect}) cannot say a call of {unguard(calls[0]['name'])}{beside}: "
            f"its text {text[:120]!r} would read back as something else; see docs/chat.md for what a dialect can say"
        )

    def _written(self, span: str) -> str:
        """The text of a marked span without the token that ends the turn and what follows it."""
        pieces = self._encoder.pieces(span)
        ends = [i for i, piece in enumerate(pieces) if self._control.get(piece) in self.stop_ids]
        return unguard("".join(pieces[: ends[-1]] if ends else pieces))

    def _check_control_tokens(self) -> None:
        """Our template and the stock ones are for tokenizers that have their control tokens."""
        missing = (
            [] if self.dialect is None else sorted(set(re.findall(r"<\|\w+\|>", self._source)) - self._control.keys())
        )
        if missing:
            raise UserError(
                f"{self._template_name} writes {missing[0]}, which is no token of its; use Llama's tokenizer"
            )

    def _find_late_header(self) -> str:
        """The end of the assistant's header, where a template marks it as generated though the prompt ends with it."""
        ready, variables = self._ready(_PROBE, ())
        before = self._text(ready, variables).partition(OPEN)[0]
        return self._text(ready[:1], variables, ask=True).removeprefix(before)

    def _find_eot(self) -> int:
        """The last control token that the template trains in an answer."""
        body = _spans(self._text(*self._ready(_PROBE, ())))[-1:]
        ends = [piece for piece in self._encoder.pieces("".join(body)) if piece in self._control]
        if not ends:
            raise UserError(f"{self._template_name} trains no end of turn; put that token inside the generation block")
        return self._control[ends[-1]]

    def _find_pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        pad = next((self._control[name] for name in PADS if name in self._control), None) if pad is None else pad
        if pad is None:
            raise UserError(f"{self._where} has no padding token; give the tokenizer one")
        if pad in (*self.stop_ids, self.tokenizer.eos_token_id):
            token = self.tokenizer.convert_ids_to_tokens(pad)
            raise UserError(
                f"{self._where} pads with {token}, which also ends a turn; give it a padding token of its own"
            )
        return int(pad)

    def _check_against_transformers(self) -> None:
        ids = self.conversation(_PROBE, train="all").ids
        if ids != self.tokenizer.apply_chat_template([*_PROBE], return_dict=False):
            raise UserError(
                f"{self._template_name} gives other ids here than in transformers; use a byte-level tokenizer"
            )
        if self.tokenizer.bos_token_id is not None and ids.count(self.tokenizer.bos_token_id) > 1:
            raise UserError(f"{self._template_name} writes {self.tokenizer.bos_token} more than once; let it write one")


def _spans(marked: str) -> list[str]:
    """The text of each generation block."""
    return [part.partition(CLOSE)[0] for part in marked.split(OPEN)[1:]]


def _trained_spans(messages: Sequence[Message], turns: list[int], train: Train) -> list[int]:
    """Which of the assistant messages are trained, counted from 0."""
    if train == "last":
        asked = [span for span, turn in enumerate(turns) if messages[turn].get("train")]
        return sorted({*asked, len(turns) - 1})
    chosen = [span for span, turn in enumerate(turns) if train == "all" or is_trained(messages[turn])]
    if not chosen:
        raise UserError("the train flags of a conversation leave no turn to train; drop the row or a flag")
    return chosen
