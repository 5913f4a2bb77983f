"""Tools from real code: documented Python functions of a source tree as JSON schemas, with calls that stand in it.

The paper mines The Stack for definitions and calls and drops what has no docstring (P 4.3.5); here any source tree is
mined, the standard library at hand. Nothing of a tree is imported: it is read as syntax. `python -m synth.tools.mining
[TREE]` prints what is found.
"""

import ast
import builtins
import importlib
import inspect
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from posttrain.chat import CONTROL_TOKENS
from posttrain.data.records import parse_json
from posttrain.data.rows import Tool, canonical_json
from posttrain.errors import UserError
from synth.pipelines.functions_spec import STDLIB
from synth.tools.schema import Parameter, documented, schema

Kind = Literal["function", "class method", "method"]
NO_TOOLS = frozenset(
    ("test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "pydoc_data", "ensurepip")
)
"""Folders without functions that anybody would offer as tools."""
WITH_CALLS = frozenset(("test", "tests"))
"""Those of them that are full of calls."""
LITERALS = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp)
COMPILED = ("math", "cmath", "binascii", "builtins", "unicodedata", "zlib", "time", "operator", "itertools", "string")
"""Modules of the standard library that have no source, or take their functions from C."""
ALIASES = {"os.path": "posixpath"}
LEAST_WORDS = 2
"""Words of a docstring that say something."""
MOST_NAME = 64
"""Characters of a tool's name that OpenAI's format allows."""
MOST_CALLS = 8
"""Different calls that are kept of one function."""
MOST_CALL = 400
"""Characters of a call's arguments as JSON."""


@dataclass(frozen=True)
class Mined:
    """A function as a tool. `origin` is its dotted name; one of kind `method` needs an object, so that it cannot be run
    from its arguments alone. `calls` are arguments that it is given somewhere in the tree."""

    origin: str
    module: str
    kind: Kind
    tool: Tool
    by_position: tuple[str, ...] = ()
    """Parameters that cannot be named in a call, in order."""
    calls: tuple[dict[str, Any], ...] = ()
    file: str = ""
    """Its source file in the tree; empty in the standard library, where the module can be imported."""

    @property
    def name(self) -> str:
        return str(self.tool["function"]["name"])

    @property
    def runs(self) -> bool:
        return self.kind != "method"


def mine(tree: str) -> list[Mined]:
    """The documented public functions and methods of a folder, or of STDLIB, in order of their dotted names.

    Raises UserError for a folder without any.
    """
    if tree == STDLIB:
        return list(_standard_library())
    definitions, calls = _read(Path(tree))
    if not definitions:
        raise UserError(f"{tree} holds no public Python function with a docstring; name a folder of Python source")
    found = _with_calls(definitions, calls)
    return [replace(one, file=str(_file_of(Path(tree), one.module))) for one in found]


@cache
def _standard_library() -> tuple[Mined, ...]:
    """Mined once for each process."""
    definitions, calls = _read(Path(sysconfig.get_path("stdlib")))
    found = {one.origin: one for one in definitions}
    for module in COMPILED:
        for one in _compiled(module):
            found.setdefault(one.origin, one)
    return tuple(_with_calls(list(found.values()), calls))


Called = list[tuple[str, ast.Call]]
"""Full name of what is called, and the call."""


def _read(tree: Path) -> tuple[list[Mined], Called]:
    """The definitions of a tree and the calls in it, each file read once."""
    found: dict[str, Mined] = {}
    called: Called = []
    for parts, body in _files(tree):
        module = ".".join(parts)
        if not NO_TOOLS.intersection(parts) and not any(part.startswith("_") for part in parts):
            for one in _of_module(module, body):
                found.setdefault(one.origin, one)
        called += _calls(module, body)
    return [found[origin] for origin in sorted(found)], called


def _file_of(tree: Path, module: str) -> Path:
    path = tree.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


def _files(tree: Path) -> Iterator[tuple[tuple[str, ...], ast.Module]]:
    """The parts of the dotted name and the syntax of each module that can be read."""
    for path in sorted(tree.rglob("*.py")):
        parts = path.relative_to(tree).with_suffix("").parts
        if (NO_TOOLS - WITH_CALLS).intersection(parts[:-1]):
            continue
        with suppress(SyntaxError, ValueError, OSError, RecursionError):
            body = ast.parse(path.read_text(encoding="utf-8"))
            yield parts[:-1] if parts[-1] == "__init__" else parts, body


def _of_module(module: str, body: ast.Module) -> Iterator[Mined]:
    for node in body.body:
        if isinstance(node, ast.FunctionDef) and (one := _mined(module, "", node)):
            yield one
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (one := _mined(module, node.name, method)):
                    yield one


def _mined(module: str, owner: str, node: ast.FunctionDef) -> Mined | None:
    """A definition as a tool; None for a private or undocumented one, and one that takes anything."""
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    if owner and marks & {"property", "cached_property", "setter", "deleter", "getter", "abstractmethod"}:
        return None
    kind: Kind = "function"
    if owner and "staticmethod" not in marks:
        kind = "class method" if "classmethod" in marks else "method"
    names = node.args
    given = [*names.posonlyargs, *names.args]
    defaults = [None] * (len(given) - len(names.defaults)) + list(names.defaults)
    pairs = list(zip(given, defaults, strict=True))[0 if kind == "function" else 1 :]
    bound = {argument.arg for argument in names.posonlyargs}
    pairs += zip(names.kwonlyargs, names.kw_defaults, strict=True)
    parameters = [Parameter.of_syntax(argument.arg, argument.annotation, default) for argument, default in pairs]
    if names.vararg and not parameters:
        return None
    positional = tuple(argument.arg for argument, _ in pairs if argument.arg in bound)
    return _made(module, owner, node.name, kind, ast.get_docstring(node), parameters, positional)


def _compiled(module: str) -> Iterator[Mined]:
    """The functions of a module that have no source, as the interpreter tells them."""
    for name, function in sorted(vars(importlib.import_module(module)).items()):
        if not inspect.isbuiltin(function):
            continue
        with suppress(ValueError):
            own = list(inspect.signature(function).parameters.values())
            if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in own):
                continue
            parameters = [Parameter.of_value(one.name, one.default, one.default is one.empty) for one in own]
            positional = tuple(one.name for one in own if one.kind is one.POSITIONAL_ONLY)
            if made := _made(module, "", name, "function", inspect.getdoc(function), parameters, positional):
                yield made


def _made(
    module: str, owner: str, name: str, kind: Kind, text: str | None, parameters: Sequence[Parameter],
    positional: tuple[str, ...],
) -> Mined | None:  # fmt: skip
    text = documented(text or "")
    full = f"{owner}_{name}" if owner else name
    if name.startswith("_") or len(text.split()) < LEAST_WORDS or len(full) > MOST_NAME:
        return None
    if not full.isidentifier() or not full.isascii() or any(token in text for token in CONTROL_TOKENS):
        return None
    origin = ".".join(filter(None, [module, owner, name]))
    return Mined(origin, module, kind, schema(full, text, parameters), positional)


# Calls that stand in the tree.


def _with_calls(found: Sequence[Mined], called: Called) -> list[Mined]:
    """The same with the calls whose arguments are literals."""
    of_origin = {one.origin: one for one in found if one.runs}
    calls: dict[str, dict[str, dict[str, Any]]] = {}
    for origin, node in called:
        one = of_origin.get(origin)
        if one is None or len(kept := calls.setdefault(origin, {})) == MOST_CALLS:
            continue
        if arguments := _arguments(node, one):
            kept.setdefault(canonical_json(arguments), arguments)
    return [replace(one, calls=tuple(calls.get(one.origin, {}).values())) for one in found]


def _calls(module: str, body: ast.Module) -> Called:
    """Each call, with arguments that could be literals, of a name that is imported, built in, or defined on the
    module's top."""
    nodes = list(ast.walk(body))
    names = {node.name: f"{module}.{node.name}" for node in body.body if isinstance(node, ast.FunctionDef)}
    for node in nodes:
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.split(".")[0]] = one.name if one.asname else one.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    found: Called = []
    for node in nodes:
        if isinstance(node, ast.Call) and _could_be_literal(node) and (dotted := _dotted(node.func)):
            first, dot, rest = dotted.partition(".")
            if full := names.get(first) or (f"builtins.{first}" if hasattr(builtins, first) else ""):
                found.append((_real(full + dot + rest), node))
    return found


def _could_be_literal(node: ast.Call) -> bool:
    return all(isinstance(value, LITERALS) for value in (*node.args, *(word.value for word in node.keywords)))


def _real(name: str) -> str:
    """The name of the module that defines what is called."""
    return next((real + name[len(alias) :] for alias, real in ALIASES.items() if name.startswith(f"{alias}.")), name)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


def _arguments(node: ast.Call, one: Mined) -> dict[str, Any] | None:
    """The arguments of a call by name where all are literals that JSON has; None for others."""
    properties = list(one.tool["function"]["parameters"]["properties"])
    if len(node.args) > len(properties) or any(word.arg not in properties for word in node.keywords):
        return None
    written = {**dict(zip(properties, node.args, strict=False)), **{str(w.arg): w.value for w in node.keywords}}
    try:
        values = {name: ast.literal_eval(value) for name, value in written.items()}
        text = canonical_json(values)
        same = parse_json(text) == values
    except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError):
        return None
    lacks = set(one.tool["function"]["parameters"]["required"]) - values.keys()
    control = any(token in text for token in CONTROL_TOKENS)
    return values if same and not lacks and not control and len(text) <= MOST_CALL and _printable(text) else None


def _printable(text: str) -> bool:
    """No lone surrogates, which no server can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counts(found: Sequence[Mined]) -> Mapping[str, int]:
    """How many there are of each kind, and how many can be run, come with calls, and have a valid schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    said: Counter[str] = Counter(one.kind for one in found)
    for one in found:
        with suppress(SchemaError):
            Draft202012Validator.check_schema(one.tool["function"]["parameters"])
            said["valid schemas"] += 1
        said["can be run"] += one.runs
        said["with calls"] += bool(one.calls)
        said["calls"] += len(one.calls)
    return said


if __name__ == "__main__":
    print(", ".join(f"{count:,} {what}" for what, count in counts(mine([*sys.argv[1:], STDLIB][0])).items()))
