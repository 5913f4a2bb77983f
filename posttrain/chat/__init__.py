"""Chat: the renderer, the template and the tokenizer. What is trained is what is served."""

from posttrain.chat.parse import parse_calls, parse_message
from posttrain.chat.render import CONTEXT, FORMAT, TRAINED, Rendered, Renderer
from posttrain.chat.template import LLAMA31_TEMPLATE
from posttrain.chat.tokenizer import CONTROL_TOKENS, build_tokenizer

__all__ = [
    "CONTEXT",
    "CONTROL_TOKENS",
    "FORMAT",
    "LLAMA31_TEMPLATE",
    "TRAINED",
    "Rendered",
    "Renderer",
    "build_tokenizer",
    "parse_calls",
    "parse_message",
]
