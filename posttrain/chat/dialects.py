"""Our Llama 3.1 template in its dialects, and templates with other defaults for their variables."""

import json
import re
from pathlib import Path

from posttrain.chat.parse import Dialect
from posttrain.errors import UserError

LLAMA31_TEMPLATE = Path(__file__).with_name("llama31.jinja").read_text(encoding="utf-8")
"""The template that `build_tokenizer` saves, in the dialect `posttrain`."""

DATE = "26 Jul 2024"
"""The date that conversations carry unless a recipe says otherwise: the stock Llama 3.1 template's."""

_PIN = re.compile(r"\{%- set (\w+) = \1 \| default\((.*)\) %\}\n")
_DATE_TEXT = re.compile(r"[\w ,./:-]{1,40}")


def pin(source: str, **values: str | bool) -> str:
    """The template with these defaults for its variables, in lines at its top that replace those of earlier calls."""
    pins, source = _pinned(source)
    pins.update((name, json.dumps(value, ensure_ascii=False)) for name, value in values.items())
    return "".join(f"{{%- set {name} = {name} | default({pins[name]}) %}}\n" for name in sorted(pins)) + source


def _pinned(source: str) -> tuple[dict[str, str], str]:
    """Name → default of the lines at the top, and the template below them."""
    pins: dict[str, str] = {}
    while line := _PIN.match(source):
        pins[line[1]] = line[2]
        source = source[line.end() :]
    return pins, source


TEMPLATES = {
    "llama-3.1": LLAMA31_TEMPLATE,
    "llama-3.1-hf": pin(LLAMA31_TEMPLATE, dialect="hf"),
    "llama-3.1-meta": pin(LLAMA31_TEMPLATE, dialect="meta"),
}
"""Templates a recipe can name, for a base model whose tokenizer has none."""


def named_template(name: str) -> str:
    """A template of TEMPLATES. Raises UserError for another name."""
    if name not in TEMPLATES:
        raise UserError(f"template {name!r} is not known; use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def dialect_of(source: str) -> Dialect | None:
    """The dialect a template is pinned to, ours or the marked twin of a stock one; None for other templates."""
    found = re.search(r'set dialect = dialect \| default\("(posttrain|hf|meta)"\)', source)
    return found[1] if found else None  # type: ignore[return-value]


def is_dated(source: str) -> bool:
    """Whether a template was given a date."""
    return "date_string" in _pinned(source)[0]


def dated(source: str, date: str, where: str) -> str:
    """The template with this date. Raises UserError for a date no template can hold, or a template without one."""
    if not _DATE_TEXT.fullmatch(date):
        raise UserError(f"the date {date!r} cannot stand in a chat template; write it like {DATE!r}")
    if "date_string" not in source:
        raise UserError(f"the chat template of {where} prints no date_string; leave the date {date!r} out")
    return pin(source, date_string=date)
