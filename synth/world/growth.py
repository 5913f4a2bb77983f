"""A larger member out of a smaller one, which says the same at first: wider, with more heads, and deeper.

What a small model has learned need not be learned again (Net2Net, Chen et al. 2016, 1511.05641). The old weights stand
in the corner of the new ones. New features of the residual stream are zero until something writes to them, and all that
would write (embeddings, new heads and hidden units, new layers) begins at zero; what reads begins at random, so that
everything new has a gradient.
"""

import math

import torch
from torch import nn
from transformers import LlamaForCausalLM

WRITERS = ("self_attn.o_proj", "mlp.down_proj")


@torch.no_grad()
def grow(small: LlamaForCausalLM, large: LlamaForCausalLM) -> None:
    """Make `large`, new and of the same head size, give the logits of `small`."""
    widths = small.config.hidden_size, large.config.hidden_size
    assert small.config.head_dim == large.config.head_dim, "rotary frequencies must stay what they were"
    # The mean square of the same features among more, the rest of them zero, is smaller by this share.
    scale = math.sqrt(widths[0] / widths[1])
    for name, module in large.named_modules():
        if name.endswith(WRITERS):
            nn.init.zeros_(module.weight)
    nn.init.zeros_(large.model.embed_tokens.weight)
    corner(large.model.embed_tokens.weight, small.model.embed_tokens.weight)
    grow_norm(large.model.norm, small.model.norm, scale)
    for old, new in zip(small.model.layers, large.model.layers, strict=False):
        for name, module in old.named_modules():
            if isinstance(module, nn.Linear):
                corner(new.get_submodule(name).weight, module.weight)
        grow_norm(new.input_layernorm, old.input_layernorm, scale)
        grow_norm(new.post_attention_layernorm, old.post_attention_layernorm, scale)


def corner(large: torch.Tensor, small: torch.Tensor) -> None:
    """Put a matrix into the first rows and columns of a larger one. Heads stand side by side, so theirs stay whole."""
    large[: small.shape[0], : small.shape[1]] = small


def grow_norm(large: nn.Module, small: nn.Module, scale: float) -> None:
    """Weights of a norm; features that are new get the mean of the old."""
    large.weight.fill_(small.weight.mean() * scale)
    large.weight[: len(small.weight)] = small.weight * scale
