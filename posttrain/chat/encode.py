"""Marked text → token ids, loss mask and format labels."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.chat.parse import PYTHON_TAG
from posttrain.chat.template import CLOSE, OPEN, any_of, guarding, unguard
from posttrain.chat.tokenizer import END_HEADER, START_HEADER
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT, TRAINED, FORMAT = 0, 1, 2
"""Mask values: not trained; trained; trained, and a format token (the end of the turn), which DPO leaves out."""

_SHORT = 256  # characters; shorter segments ("\n\n", role names, the system turn) repeat and are kept encoded …
_KEPT = 4096  # … as long as there are no more of them


@dataclass(frozen=True)
class Rendered:
    """`ids`, `mask` and `format` are of one length.

    Mask values are CONTEXT 0, TRAINED 1, FORMAT 2. `format` is true for every token that says whose turn begins or
    ends, trained or not: the template's control tokens but for `<|python_tag|>`, and the text of Llama's headers.
    """

    ids: list[int]
    mask: list[int]
    format: list[bool]


class Encoder:
    """A tokenizer for which only the template's control tokens are control tokens.

    `control` is their names and ids, `guard` makes their text in contents harmless.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.control: dict[str, int] = {
            token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self.guard = guarding(self.control)
        self._pieces = re.compile(f"({any_of([*self.control, OPEN, CLOSE])})")
        # A copy, because control-token text must stay text here and nowhere else.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._known: dict[str, list[int]] = {}

    def pieces(self, text: str) -> list[str]:
        """Marked text cut at control tokens and marks, which are pieces of their own."""
        return self._pieces.split(text)

    def rendered(self, text: str, trained: Collection[int], stop_ids: Collection[int]) -> Rendered:
        """Ids and mask of marked text; the generation spans with the numbers `trained` are trained.

        Raises UserError for text that is none, and for an answer in the middle that begins with blanks which the
        tokenizer joins with its header.
        """
        ids: list[int] = []
        mask: list[int] = []
        format: list[bool] = []
        span, last, inside, header, before = -1, text.count(OPEN) - 1, False, False, ""
        for piece in self.pieces(text):
            learn = inside and span in trained
            if piece == OPEN:
                span, inside = span + 1, True
            elif piece == CLOSE:
                inside = False
            elif piece in self.control:
                ids.append(self.control[piece])
                mask.append((FORMAT if ids[-1] in stop_ids else TRAINED) if learn else CONTEXT)
                format.append(piece != PYTHON_TAG)
                header, before = piece in (START_HEADER, END_HEADER), ""
            elif piece:
                new = self._ids(piece)
                if inside and before and span < last and piece[0].isspace():
                    self._check_apart(before, piece, new)
                ids.extend(new)
                mask.extend([TRAINED if learn else CONTEXT] * len(new))
                format.extend([header and not inside and (piece == "\n\n" or piece.isalpha())] * len(new))
                before = "" if inside else piece
        return Rendered(ids, mask, format)

    def _check_apart(self, before: str, piece: str, ids: list[int]) -> None:
        """Refuse an answer whose first blanks join its header: as context of a later turn it has other ids served."""
        if self._encode(before + piece) != [*self._ids(before), *ids]:
            raise UserError(
                "an answer before the last begins with a line break, which the tokenizer joins with its header's, so "
                "it would be served as other tokens than here; take it off"
            )

    def _ids(self, piece: str) -> list[int]:
        """Ids of text, kept when it is short."""
        ids = self._known.get(piece)
        if ids is None:
            ids = self._encode(piece)
            if len(piece) < _SHORT and len(self._known) < _KEPT:
                self._known[piece] = ids
        return ids

    def _encode(self, piece: str) -> list[int]:
        text = unguard(piece)
        try:
            if len(text) < _SHORT:
                return list(self._backend.encode(text, add_special_tokens=False).ids)
            # Without offsets, which nobody needs: a fifth faster on long text.
            return list(self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        except TypeError as error:  # what tokenizers says of text that UTF-8 cannot write
            raise UserError("a message holds half a surrogate pair, which is no text; mend that character") from error
