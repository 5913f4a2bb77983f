"""What the world can ask for, by name, so that a spec need not import the world."""

from typing import Literal, get_args

Capability = Literal["tool_use", "multilingual", "long_context", "instructions"]
WORLD: tuple[Capability, ...] = get_args(Capability)
"""The keys of `synth.world.CAPABILITIES`."""
PROMPT_TOKENS = {"tool_use": 300, "multilingual": 70, "instructions": 65}
"""A world prompt with its template and tools but no haystack, for estimates (tiny tokenizer, mean of both levels)."""
OTHER_PROMPT_TOKENS = 150
"""A prompt of a file that says nothing of its length."""
WORDINGS = {
    "tool_use": ("tool_use/new_prompt", ("calls",)),
    "multilingual": ("common/translate", ("text", "language")),
    "long_context": ("long_context/new_prompt", ("answer",)),
    "instructions": ("instructions/new_prompt", ("words", "how", "ending")),
}
"""The operator prompt that has a task of the world worded, and its variables."""
OPERATOR_TOKENS = 100
"""What the teacher reads to word a task of the world, for estimates, and"""
WORDING_TOKENS = 20
"""what it writes."""
LENGTHS = (256, 512, 1024, 2000)
"""Tokens of a long_context prompt, drawn evenly."""
Level = Literal[1, 2]


def prompt_tokens(capability: str, lengths: tuple[int, ...]) -> int:
    """Expected tokens of one prompt."""
    if capability == "long_context" and lengths:
        return sum(lengths) // len(lengths)
    return PROMPT_TOKENS.get(capability, OTHER_PROMPT_TOKENS)
