"""The one renderer: messages → token ids and loss mask, grown together.

Everything that is trained, sampled, scored or shown goes through here, with the chat template that is saved with the
checkpoint.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from posttrain.chat.messages import checked
from posttrain.chat.parse import parse_message
from posttrain.chat.template import CLOSE, OPEN, any_of, checked_template, guarding, unguard
from posttrain.chat.tokenizer import EOM, PAD
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT, TRAINED, FORMAT = 0, 1, 2
"""Mask values: not trained; trained; trained, and a format token (the end of the turn), which DPO leaves out."""

_SHORT = 256  # characters; shorter segments ("\n\n", role names, the system turn) repeat and are kept encoded
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "Hello,  1 2\n\n x"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "12.5 is\nall"},
)


@dataclass(frozen=True)
class Rendered:
    """`ids` and `mask` are of one length; mask values are CONTEXT 0, TRAINED 1, FORMAT 2."""

    ids: list[int]
    mask: list[int]


class Renderer:
    """Renders conversations with a tokenizer's own chat template, and reads generated text back.

    `eot_id` ends an assistant turn, `stop_ids` is all that ends one (also `<|eom_id|>` where the tokenizer has it),
    `pad_id` is another token than these. Raises UserError when the tokenizer has no template, no generation markers or
    no padding token of its own, and when the template prints today's date, writes two BOS, trains no end of turn,
    breaks the prompt's prefix, or gives other ids here than in `apply_chat_template`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self._where = str(tokenizer.name_or_path or "the tokenizer")
        self._template_name = f"the chat template of {self._where}"
        self._template = checked_template(tokenizer.chat_template, self._where)
        self._variables: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._control: dict[str, int] = {
            token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._guard = guarding(self._control)
        self._pieces = re.compile(f"({any_of([*self._control, OPEN, CLOSE])})")
        # A copy, because control-token text must stay text here and nowhere else.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._encode_short = lru_cache(maxsize=4096)(self._encode_text)
        self.eot_id = self._find_eot()
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([self.eot_id, self._control.get(EOM, self.eot_id)]))
        self.pad_id = self._find_pad()
        self._check_against_transformers()

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Renderer:
        """The renderer of a checkpoint folder or hub name. Raises UserError when it has no usable fast tokenizer."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(f"no tokenizer in {path} ({why}); name a folder that has tokenizer.json") from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"the tokenizer of {path} is not a fast one; convert it and save its tokenizer.json")
        return cls(tokenizer)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Ids up to where the assistant is to speak (the header and its blank line stand at the end).

        Raises UserError for messages the template cannot say, or whose last one is the assistant's.
        """
        if messages and messages[-1].get("role") == "assistant":
            raise UserError("a prompt ends with an assistant message; leave the answer off")
        return self._tokens(self._text(*self._ready(messages, tools), ask=True), first_span=0)[0]

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), train: Literal["last", "all"] = "last"
    ) -> Rendered:
        """Ids and mask of a conversation whose last message is the assistant's answer.

        `train` says which assistant turns are trained. The prompt before each of them is a prefix of the ids. Raises
        UserError for messages the template cannot say and for a template that breaks the prefix.
        """
        if not messages or messages[-1].get("role") != "assistant":
            raise UserError("a conversation to train on does not end with the assistant; add the answer")
        ready, safe_tools = self._ready(messages, tools)
        text = self._text(ready, safe_tools)
        turns = [i for i, message in enumerate(ready) if message["role"] == "assistant"]
        before = text.split(OPEN)
        if len(before) != len(turns) + 1:
            raise UserError(f"{self._template_name} marks {len(before) - 1} of {len(turns)} assistant turns; mend it")
        first = 0 if train == "all" else len(turns) - 1
        if turns[first] == 0:
            raise UserError("a conversation begins with an answer to train on; put the prompt before it")
        for span in range(first, len(turns)):
            if OPEN.join(before[: span + 1]) != self._text(ready[: turns[span]], safe_tools, ask=True):
                raise UserError(f"with {self._template_name} the prompt is no prefix of the conversation; mend it")
        return Rendered(*self._tokens(text, first))

    def message(self, text: str) -> Message:
        """The assistant message that generated text (without its end of turn) says; see `posttrain.chat.parse`."""
        return parse_message(text)

    def text(self, message: Message) -> str:
        """What the model is to write for an assistant message, without the end of turn; `message` reads it back."""
        assert message["role"] == "assistant", message["role"]
        marked = self._text(*self._ready([_PROBE[0], message], ()))
        return unguard(self._pieces.split(_last_span(marked))[0])

    def _ready(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], list[Tool]]:
        """Checked and guarded messages and tools."""
        return self._guard(checked(messages, tools)), self._guard(tools)

    def _text(self, messages: list[Message], tools: list[Tool], ask: bool = False) -> str:
        """Marked text of guarded messages; with `ask`, the assistant's header at the end."""
        try:
            return self._template.render(
                messages=messages, tools=tools or None, add_generation_prompt=ask, **self._variables
            )
        except (TemplateError, TypeError) as error:
            raise UserError(f"{self._template_name} cannot render a conversation: {error}") from error

    def _tokens(self, text: str, first_span: int) -> tuple[list[int], list[int]]:
        """Ids and mask of marked text; generation spans are trained from number `first_span` on."""
        ids: list[int] = []
        mask: list[int] = []
        span, inside = -1, False
        for piece in self._pieces.split(text):
            trained = inside and span >= first_span
            if piece == OPEN:
                span, inside = span + 1, True
            elif piece == CLOSE:
                inside = False
            elif piece in self._control:
                ids.append(self._control[piece])
                mask.append((FORMAT if ids[-1] in self.stop_ids else TRAINED) if trained else CONTEXT)
            elif piece:
                new = self._encode_short(piece) if len(piece) < _SHORT else self._encode_text(piece)
                ids.extend(new)
                mask.extend([TRAINED if trained else CONTEXT] * len(new))
        return ids, mask

    def _encode_text(self, piece: str) -> list[int]:
        try:
            return list(self._backend.encode(unguard(piece), add_special_tokens=False).ids)
        except TypeError as error:  # what tokenizers says of text that UTF-8 cannot write
            raise UserError("a message holds half a surrogate pair, which is no text; mend that character") from error

    def _find_eot(self) -> int:
        """The last control token that the template trains in an answer."""
        body = _last_span(self._text(*self._ready(_PROBE, ())))
        ends = [piece for piece in self._pieces.split(body) if piece in self._control]
        if not ends:
            raise UserError(f"{self._template_name} trains no end of turn; put that token inside the generation block")
        return self._control[ends[-1]]

    def _find_pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        pad = self._control.get(PAD) if pad is None else pad
        if pad is None:
            raise UserError(f"{self._where} has no padding token; give the tokenizer one")
        if pad in self.stop_ids:
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


def _last_span(marked: str) -> str:
    return marked.rpartition(OPEN)[2].partition(CLOSE)[0]
