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
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from posttrain.errors import UserError

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
    if indent is None:
        return json.dumps(value, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)
    return _indented(json.dumps(value), ensure_ascii, indent, separators, sort_keys)


@lru_cache(maxsize=1024)
def _indented(text: str, ensure_ascii: bool, indent: int, separators: tuple[str, str] | None, sort_keys: bool) -> str:
    """JSON text with line breaks. Python writes it ten times slower than compact text, and rows share their tools."""
    value = json.loads(text)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _today(pattern: str) -> None:
    raise TemplateError("it prints today's date, so its text would change daily")


@lru_cache(maxsize=32)
def compile_template(source: str) -> Template:
    """The template in the environment that transformers uses, but for generation blocks, and refusing today's date.

    Raises jinja2's TemplateError when it does not parse.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise, strftime_now=_today)
    return environment.from_string(source)


def is_marked(source: str) -> bool:
    """Whether a template says which text is the assistant's."""
    return bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))


def any_of(texts: Iterable[str]) -> str:
    """A regular expression for any of the texts, the longest where several fit; for none it never matches."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)"


def guarding(control_tokens: Iterable[str]) -> Callable[[Any], Any]:
    """A function that makes JSON-like content harmless, deeply and with keys; `unguard` gives the text back.

    That function raises UserError for a number JSON does not have: it would teach the model to write broken JSON.
    """
    tokens = list(control_tokens)
    control = re.compile(any_of(tokens))

    def broken(token: re.Match[str]) -> str:
        return token[0][0] + BREAK + token[0][1:]

    written_plainly = all(json.dumps(token)[1:-1] == token for token in tokens)
    beginnings = {token[:2] for token in tokens} | {ESCAPE}

    def guard(value: Any) -> Any:
        if written_plainly and not isinstance(value, str):
            try:
                text = json.dumps(value, ensure_ascii=False, allow_nan=False)
                if not any(beginning in text for beginning in beginnings):
                    return value
            except (TypeError, ValueError):
                pass  # no JSON: the deep way says what is wrong, or leaves it to the template
        return deep(value)

    def deep(value: Any) -> Any:
        if isinstance(value, str):
            return control.sub(broken, value.replace(ESCAPE, LITERAL))
        if isinstance(value, Mapping):
            return {deep(key): deep(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [deep(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"a message or tool holds {value}, which JSON cannot write; use a finite number or null")
        return value

    return guard


def unguard(text: str) -> str:
    """What the content was before it was guarded."""
    return text.replace(BREAK, "").replace(LITERAL, ESCAPE)
