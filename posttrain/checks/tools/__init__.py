"""Tools whose calls are really run: `python` in the sandbox, `calculator`, `search` in a folder or file of texts, and a
user's own functions.

Sampling, the teacher's dialogs and anyone else who lets a model call tools opens them here by name, with
`open_tools({"calculator": "calculator", "get_weather": "my_tools:weather"})`, and puts calls to `run_calls`.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.chat.parse import BUILTIN_TOOLS
from posttrain.checks.calls import functions_of
from posttrain.checks.tools import calculator, python, search
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

SCHEMAS: dict[str, Tool] = {"python": python.SCHEMA, "calculator": calculator.SCHEMA, "search": search.SCHEMA}
"""The core tools as a prompt declares them."""
MOST_RESULT = 4_000
"""Characters of a result that the model gets to see."""

Run = Callable[..., Any]
"""The arguments of a call by name → its result, any JSON value. A ValueError is a mistake of the caller, told to it."""


@dataclass(frozen=True)
class Executor:
    """What runs the calls of one tool, and the schema its arguments must fit."""

    schema: Tool
    run: Run


def open_tools(wanted: Mapping[str, str], corpus: str | Path | None = None) -> dict[str, Executor]:
    """Tool name, as prompts declare it → its executor. `wanted` names for each a core tool or a user's
    `module:function`; `corpus` is what `search` looks through.

    Llama's built-in names can be served too: `code_interpreter: python`, `brave_search: search`. A user's function gets
    a call's arguments by name. Raises UserError for a name that is neither, for a machine without sandbox, and for a
    corpus without texts.
    """
    return {name: _open(name, by, corpus) for name, by in wanted.items()}


def _open(name: str, by: str, corpus: str | Path | None) -> Executor:
    if by not in SCHEMAS:
        return Executor({}, _own_function(name, by))
    if by == "python":
        python.require_sandbox()
    run = search.Library(corpus).run if by == "search" else {"python": python.run, "calculator": calculator.run}[by]
    return Executor(SCHEMAS[by], run) if name not in BUILTIN_TOOLS else _built_in(name, SCHEMAS[by], run)


def _built_in(name: str, schema: Tool, run: Run) -> Executor:
    """Under a built-in name: the one argument that Llama 3.1 gives it is the tool's own first one."""
    given, own = BUILTIN_TOOLS[name], next(iter(schema["function"]["parameters"]["properties"]))
    parameters = {"type": "object", "properties": {given: {"type": "string"}}, "required": [given]}
    function = {"name": name, "parameters": parameters}
    return Executor({"type": "function", "function": function}, lambda **said: run(**{own: said[given]}))


def check_name(name: str, by: str) -> None:
    """Raise UserError for an executor that is neither a core tool nor `module:function` of a module that is there."""
    module, _, function = by.partition(":")
    if by in SCHEMAS or (function and _is_there(module)):
        return
    raise UserError(
        f"tool {name}: nothing runs it under the name {by!r}; write {', '.join(SCHEMAS)}, or module:function of a "
        "module that can be imported"
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _own_function(name: str, by: str) -> Run:
    check_name(name, by)
    module, _, function = by.partition(":")
    run = getattr(importlib.import_module(module), function, None)
    if not callable(run):
        raise UserError(f"tool {name}: module {module} has no function {function}; name one that it has")
    own: Run = run
    return own


def run_calls(executors: Mapping[str, Executor], message: Message, declared: Iterable[Tool] = ()) -> list[Message]:
    """A tool message for each call of an assistant message, in order; none where not every call has an executor.

    A call's arguments are checked against the schema that its prompt `declared`, else the executor's own. What cannot
    be done is a result too: `{"error": why}`.
    """
    functions = functions_of(message)
    if not all(function["name"] in executors for function in functions):
        return []
    schemas = {tool["function"]["name"]: tool for tool in declared if "function" in tool}
    return [_said(executors[call["name"]], schemas.get(call["name"]), call["arguments"]) for call in functions]


def _said(executor: Executor, declared: Tool | None, arguments: dict[str, Any]) -> Message:
    text = result_text(_result(executor, declared or executor.schema, arguments))
    cut = f"{text[:MOST_RESULT]}… (cut at {MOST_RESULT:,} characters)" if len(text) > MOST_RESULT else text
    return {"role": "tool", "content": cut}


def _result(executor: Executor, schema: Tool, arguments: dict[str, Any]) -> Any:
    if fault := fault_of(schema, arguments):
        return {"error": fault}
    try:
        return executor.run(**arguments)
    except (ValueError, TypeError, KeyError) as error:
        return {"error": " ".join(str(error).split())[:300] or type(error).__name__}


def fault_of(tool: Tool, arguments: dict[str, Any]) -> str:
    """What keeps arguments from fitting a tool's JSON schema, or an empty text. A parameter that the schema does not
    name is a fault, too."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    parameters = tool.get("function", tool).get("parameters") or {}
    if unknown := sorted(arguments.keys() - (parameters.get("properties") or arguments).keys()):
        return f"there is no parameter {unknown[0]}; there are {', '.join(parameters['properties'])}"
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as broken:
        return f"the tool's schema is broken ({broken.message})"
    error = best_match(Draft202012Validator(parameters).iter_errors(arguments))
    if error is None:
        return ""
    return f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}"


def result_text(result: Any) -> str:
    """A result as the tool message says it."""
    return json.dumps(result, ensure_ascii=False, default=str)
