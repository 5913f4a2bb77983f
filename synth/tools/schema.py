"""JSON schemas of signatures: types from annotations and defaults, descriptions from docstrings."""

import ast
import inspect
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import Tool

MOST_TEXT = 900
"""Characters of a docstring that a tool is described with, cut after a paragraph or a sentence."""
NAMES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "Dict": "object",
    "Mapping": "object", "list": "array", "List": "array", "Sequence": "array", "Iterable": "array", "tuple": "array",
    "Tuple": "array", "set": "array",
}  # fmt: skip
_PARAMETER = r"^\s*(?::param(?:\s+[\w\[\], .|]+)?\s+{name}\s*:|{name}\s*(?:\([^)]*\))?\s*(?::|--|-)\s)\s*(.+)$"


@dataclass(frozen=True)
class Parameter:
    """A parameter with what is known of its type."""

    name: str
    schema: dict[str, Any]
    required: bool

    @classmethod
    def of_syntax(cls, name: str, annotation: ast.expr | None, default: ast.expr | None) -> "Parameter":
        """As it stands in a definition."""
        known = of_annotation(annotation)
        if default is None:
            return cls(name, known, True)
        with suppress(ValueError, TypeError, SyntaxError, RecursionError):
            return cls(name, {**of_value(ast.literal_eval(default)), **known}, False)
        return cls(name, known, False)

    @classmethod
    def of_value(cls, name: str, default: Any, required: bool) -> "Parameter":
        """As the interpreter tells it."""
        return cls(name, {} if required else of_value(default), required)


def of_value(value: Any) -> dict[str, Any]:
    """The type of a default, and the default; nothing where JSON has no such value."""
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            endless = isinstance(value, float) and not math.isfinite(value)
            return {} if endless else {"type": name, "default": value}
    if isinstance(value, list | tuple):
        return {"type": "array"}
    return {"type": "object"} if isinstance(value, dict) else {}


def of_annotation(node: ast.expr | None) -> dict[str, Any]:
    """What an annotation says; nothing where that is nothing JSON knows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        with suppress(SyntaxError):
            return of_annotation(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        return {"type": NAMES[name]} if name in NAMES else {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [side for side in (node.left, node.right) if not _is_none(side)]
        return of_annotation(sides[0]) if len(sides) == 1 else {}
    return _of_subscript(node) if isinstance(node, ast.Subscript) else {}


def _of_subscript(node: ast.Subscript) -> dict[str, Any]:
    base = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base == "Literal":
        values = [one.value for one in inner if isinstance(one, ast.Constant)]
        texts = len(values) == len(inner) and all(isinstance(value, str) for value in values)
        return {"type": "string", "enum": values} if texts else {}
    if base == "Optional":
        return of_annotation(inner[0])
    if NAMES.get(base) == "array" and base not in ("tuple", "Tuple"):
        items = of_annotation(inner[0])
        return {"type": "array", "items": items} if items else {"type": "array"}
    return {"type": NAMES[base]} if base in NAMES else {}


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def documented(text: str) -> str:
    """A docstring without its examples, of which the answers would be known, and not too long."""
    text = inspect.cleandoc(text).partition(">>>")[0].strip()
    if len(text) <= MOST_TEXT:
        return text
    shorter = text[:MOST_TEXT]
    end = max(shorter.rfind("\n\n"), shorter.rfind(". ") + 1)
    return shorter[: end if end > 0 else MOST_TEXT].strip()


def schema(name: str, text: str, parameters: Sequence[Parameter]) -> Tool:
    """A function as a tool in OpenAI's form."""
    properties = {one.name: {**one.schema, **_described(text, one.name)} for one in parameters}
    required = [one.name for one in parameters if one.required]
    declared = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": declared}}


def _described(text: str, name: str) -> dict[str, str]:
    """What a docstring says of a parameter on a line of its own, in reST's or Google's manner."""
    found = re.search(_PARAMETER.format(name=re.escape(name)), text, re.MULTILINE)
    return {"description": found[1].strip()} if found else {}
