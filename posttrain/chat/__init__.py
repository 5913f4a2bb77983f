"""Chat: the renderer, the template and the tokenizer. What is trained is what is served."""

from posttrain.chat.dialects import DATE, LLAMA31_TEMPLATE, TEMPLATES
from posttrain.chat.encode import CONTEXT, FORMAT, TRAINED, Rendered
from posttrain.chat.messages import split_tools
from posttrain.chat.parse import BUILTIN_TOOLS, AlmostCall, Dialect, Parsed, parse, parse_message
from posttrain.chat.render import Renderer, Train
from posttrain.chat.tokenizer import CONTROL_TOKENS, build_tokenizer

__all__ = [
    "BUILTIN_TOOLS",
    "CONTEXT",
    "CONTROL_TOKENS",
    "DATE",
    "FORMAT",
    "LLAMA31_TEMPLATE",
    "TEMPLATES",
    "TRAINED",
    "AlmostCall",
    "Dialect",
    "Parsed",
    "Rendered",
    "Renderer",
    "Train",
    "build_tokenizer",
    "parse",
    "parse_message",
    "split_tools",
]
