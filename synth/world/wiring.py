"""A start in which attention can already copy: previous-token heads and the induction heads that read them.

A small transformer spends millions of tokens before it finds the two-layer circuit that continues `key → value` by
what followed `key` before (Olsson et al. 2022, arXiv 2209.11895). Setting attention weights to a useful shape at the
start is a known way round (mimetic initialization, Trockman and Kolter 2023, arXiv 2305.09828); every weight is
trained on from there. Residual dimensions at the start:

    0            a constant, the same for every token: position-only attention needs something to stand on
    1 … W-41     the token's embedding, random signs; its first CODE dimensions are the code that keys are matched by
    W-40 … W-21  code of the token two back, written by layer 0
    W-20 … W-1   code of the token one back, written by layer 0
"""

import math

import torch
from transformers import LlamaForCausalLM

CODE = 20
"""Dimensions of the match code. They are placed on the ten slowest of sixteen rotary frequencies of a 32-wide head,
which turn little over a thousand tokens."""
SCALE = 0.4
"""Size of every entry of the embeddings, which are signs at the start: all tokens have one norm, and none draws
position-only attention to itself. Large against the learning rate, so that the first steps, which learn the frequent
tokens, do not undo the wiring."""
LOGIT_SCALE = 0.12
"""Weights of the last norm, which keep logits of such embeddings near one."""
FAST = 3
"""Fastest rotary frequencies, which tell neighbours apart."""
CONSTANT = 3.0
"""The constant dimension, in units of SCALE."""
BACK_GAIN = 3.0
"""Weights of position-only heads; one step off costs about six nats."""
MATCH_GAIN = {1: 3.0, 2: 4.0}
"""Weights of matching heads by layer (the stream grows with depth); a full match scores about 15 nats."""
COPY_GAIN = 2.0
"""What a copying head writes, in units of the embedding: it must outweigh the token that stands there."""


@torch.no_grad()
def wire(model: LlamaForCausalLM) -> None:
    """Set embeddings, two heads of layer 0 and all but one head of layers 1 and 2; the rest stays random."""
    width, head = model.config.hidden_size, model.config.hidden_size // model.config.num_attention_heads
    one_back, two_back = slice(width - CODE, width), slice(width - 2 * CODE, width - CODE)
    code = slice(1, 1 + CODE)
    _embed(model, width)
    model.model.norm.weight.fill_(LOGIT_SCALE)
    _look_back(model, 0, steps=1, write=one_back, head=head)
    _look_back(model, 1, steps=2, write=two_back, head=head)
    for place in range(model.config.num_attention_heads - 1):
        _copy(model, 1, place, query=code, key=one_back, head=head)
        _copy(model, 2, place, query=one_back, key=two_back, head=head)


def _embed(model: LlamaForCausalLM, width: int) -> None:
    table = model.model.embed_tokens.weight
    table.copy_(SCALE * torch.randn_like(table).sign())
    table[:, width - 2 * CODE :] = 0.0
    table[:, 0] = CONSTANT * SCALE


def _look_back(model: LlamaForCausalLM, place: int, steps: int, write: slice, head: int) -> None:
    """Layer 0, head `place`: attend `steps` back whatever stands there, and write that token's code to `write`."""
    attention = model.model.layers[0].self_attn
    rows = slice(place * head, (place + 1) * head)
    turns = model.model.rotary_emb.inv_freq
    fast = (torch.arange(len(turns)) < FAST).float()
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query[rows, :] = 0.0
    key[rows, :] = 0.0
    query[rows, 0] = BACK_GAIN * torch.cat([fast, 0 * fast])
    key[rows, 0] = BACK_GAIN * torch.cat([fast * (steps * turns).cos(), fast * (steps * turns).sin()])
    attention.v_proj.weight[rows, :] = 0.0
    attention.o_proj.weight[:, rows] = 0.0
    for i in range(CODE):
        attention.v_proj.weight[place * head + i, 1 + i] = 1.0
        attention.o_proj.weight[write.start + i, place * head + i] = SCALE


def _copy(model: LlamaForCausalLM, layer: int, place: int, query: slice, key: slice, head: int) -> None:
    """Attend where `key` holds the code that `query` holds here, and copy a slice of that token's embedding."""
    attention = model.model.layers[layer].self_attn
    first = place * head
    attention.q_proj.weight[first : first + head, :] *= 0.1
    attention.k_proj.weight[first : first + head, :] *= 0.1
    attention.v_proj.weight[first : first + head, :] = 0.0
    attention.o_proj.weight[:, first : first + head] = 0.0
    for i, dimension in enumerate(_slow(head)):
        attention.q_proj.weight[first + dimension, query.start + i] = MATCH_GAIN[layer]
        attention.k_proj.weight[first + dimension, key.start + i] = MATCH_GAIN[layer]
    for i in range(head):
        copied = 1 + place * head + i
        if copied < model.config.hidden_size - 2 * CODE:
            attention.v_proj.weight[first + i, copied] = 1.0
            attention.o_proj.weight[copied, first + i] = COPY_GAIN * SCALE


def _slow(head: int) -> list[int]:
    """A head's CODE dimensions of slowest rotation (dimension i turns with i + head / 2)."""
    half = head // 2
    pairs = range(half - math.ceil(CODE / 2), half)
    return [*pairs, *(half + pair for pair in pairs)]
