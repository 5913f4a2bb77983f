"""A small tokenizer of the Llama 3.1 kind: byte-level BPE, the same control tokens and chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from posttrain.chat.dialects import LLAMA31_TEMPLATE
from posttrain.chat.parse import PYTHON_TAG
from posttrain.chat.template import any_of
from posttrain.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

BOS, END_OF_TEXT, PAD, EOM, EOT = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|eom_id|>", "<|eot_id|>"
)  # fmt: skip
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
PADS = (PAD, "<|reserved_special_token_0|>")
"""Tokens to pad with where a tokenizer names none: Llama 3.1's, and for Llama 3 one that nothing else uses."""

# In the order of Llama 3.1's ids 128000 … 128015; the other 240 reserved ones are left out to keep embeddings small.
CONTROL_TOKENS = (
    BOS, END_OF_TEXT, "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", PAD,
    "<|reserved_special_token_2|>", START_HEADER, END_HEADER, EOM, EOT, PYTHON_TAG,
    *(f"<|reserved_special_token_{i}|>" for i in range(3, 8)),
)  # fmt: skip

# Llama 3's pre-tokenizer (its tokenizer.json), but `\p{N}` in place of `\p{N}{1,3}`: one digit a token, so that a
# small model can copy numbers.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` tokens, control tokens included (fewer when `texts` have fewer merges).

    `texts` may be rendered rows: control tokens in them are cut out before training. The same texts give the same
    tokenizer. Raises UserError when `vocab_size` does not hold the 256 bytes and the control tokens.
    """
    from tokenizers import AddedToken, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    least = 256 + len(CONTROL_TOKENS)
    if vocab_size < least:
        raise UserError(f"vocab_size is {vocab_size}, less than the {least} bytes and control tokens; raise it")
    backend = _empty_backend()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_without_control(texts), trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    _begin_with_bos(backend)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        chat_template=LLAMA31_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _empty_backend() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _begin_with_bos(backend: Tokenizer) -> None:
    """Plain `tokenizer(text)` puts one BOS in front, as Llama 3.1's does; chat templates write their own."""
    from tokenizers import processors

    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A",
                pair=f"{BOS} $A {BOS}:1 $B:1",
                special_tokens=[(BOS, backend.token_to_id(BOS))],
            ),
        ]
    )


def _without_control(texts: Iterable[str]) -> Iterator[str]:
    control = re.compile(any_of(CONTROL_TOKENS))
    for text in texts:
        yield from filter(None, control.split(text))
