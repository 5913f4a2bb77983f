"""The output layer in pieces: log-probabilities of given tokens, of whose logits only a piece exists at a time.

For devices without TRL's fused head. A model with 128,256 tokens needs 8 GiB for the logits of a row of 16K.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

PIECE = 1 << 25
"""Logits that exist at once: 128 MiB in float32, and twice that while their gradient is computed."""


def logprobs_of(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Log-probability in nats of each target, shape (N)."""
    return -cross_entropy(logits_NV.float(), targets_N, reduction="none")


@contextmanager
def in_pieces(model: Any, targets_N: Tensor) -> Iterator[bool]:
    """While open, the output layer of `model` answers with the log-probabilities of the targets (N) in place of logits
    (N, V); gives whether it does, which it does not where the logits are less than a piece."""
    own = getattr(model, "module", model)  # where a trainer has wrapped it
    head, rows = own.get_output_embeddings(), max(1, PIECE // own.config.vocab_size)
    if len(targets_N) <= rows:
        yield False
        return

    def forward(hidden_NH: Tensor) -> Tensor:
        pairs = zip(hidden_NH.split(rows), targets_N.split(rows), strict=True)
        return torch.cat([checkpoint(_piece, head, *pair, use_reentrant=False) for pair in pairs])

    head.forward = forward  # the layer itself is still called, so that what shards it finds its hooks
    try:
        yield True
    finally:
        del head.forward


def _piece(head: Any, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    return logprobs_of(linear(hidden_NH, head.weight, head.bias), targets_N)
