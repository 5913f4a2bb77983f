"""Chat template → marked text: compiled once, content guarded, assistant turns between markers.

Four two-character marks, all beginning with one private-use character, travel through the template: `LITERAL` stands
for that character where content has it, `BREAK` is put inside control-token text of contents so that it is no control
token any more, `OPEN` and `CLOSE` are what a template's `generation` block turns into. Content can forge none of them,
because its own private-use characters become `LITERAL`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from posttrain.errors import UserError

LLAMA31_TEMPLATE = Path(__file__).with_name("llama31.jinja").read_text(encoding="utf-8")
"""The template that `build_tokenizer` saves; a user may set it on any Llama 3.1 tokenizer."""

ESCAPE = "\U0010fffd"
LITERAL, BREAK, OPEN, CLOSE = (ESCAPE + digit for digit in "0123")


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, as transformers has it, but the span is marked in the text itself."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in (OPEN, CLOSE)]
        return [marks[0], *body, marks[1]]


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter as transformers defines it; jinja's own would escape HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def checked_template(source: str | dict[str, str] | None, where: str) -> Template:
    """A tokenizer's chat template, compiled; `where` names the tokenizer in the UserError for an unusable one."""
    advice = "set tokenizer.chat_template (for Llama 3.1: posttrain.chat.LLAMA31_TEMPLATE) and save the tokenizer"
    if not isinstance(source, str):
        raise UserError(f"{where} has {'several chat templates' if source else 'no chat template'}; {advice}")
    if not re.search(r"\{%-?\s*generation\s*-?%\}", source):
        raise UserError(f"the chat template of {where} has no generation markers to say what is trained; {advice}")
    if "strftime_now" in source:
        raise UserError(f"the chat template of {where} prints today's date, so its text changes daily; {advice}")
    try:
        return _compile(source)
    except TemplateError as error:
        raise UserError(f"the chat template of {where} does not parse ({error}); {advice}") from error


@lru_cache(maxsize=16)
def _compile(source: str) -> Template:
    """The template in the environment that transformers uses, but for the generation block."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


def any_of(texts: Iterable[str]) -> str:
    """A regular expression for any of the texts, the longest where several fit; for none it never matches."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)"


def guarding(control_tokens: Iterable[str]) -> Callable[[Any], Any]:
    """A function that makes JSON-like content harmless, deeply and with keys; `unguard` gives the text back.

    That function raises UserError for a number JSON does not have: it would teach the model to write broken JSON.
    """
    control = re.compile(any_of(control_tokens))

    def broken(token: re.Match[str]) -> str:
        return token[0][0] + BREAK + token[0][1:]

    def guard(value: Any) -> Any:
        if isinstance(value, str):
            return control.sub(broken, value.replace(ESCAPE, LITERAL))
        if isinstance(value, Mapping):
            return {guard(key): guard(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [guard(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"a message or tool holds {value}, which JSON cannot write; use a finite number or null")
        return value

    return guard


def unguard(text: str) -> str:
    """What the content was before it was guarded."""
    return text.replace(BREAK, "").replace(LITERAL, ESCAPE)
