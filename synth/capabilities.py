"""What the world can ask for, by name, so that a spec need not import the world."""

from typing import Literal, get_args

Capability = Literal["tool_use", "multilingual", "long_context", "instructions"]
WORLD: tuple[Capability, ...] = get_args(Capability)
"""The keys of `synth.world.CAPABILITIES`."""
PROMPT_TOKENS = 150
"""A world prompt with its template but no haystack, for estimates (shared between the four kinds, tiny tokenizer)."""
LENGTHS = (256, 512, 1024, 2000)
"""Tokens of a long_context prompt, drawn evenly."""
Level = Literal[1, 2]


def prompt_tokens(capability: str, lengths: tuple[int, ...]) -> int:
    """Expected tokens of one prompt."""
    return sum(lengths) // len(lengths) if capability == "long_context" and lengths else PROMPT_TOKENS
