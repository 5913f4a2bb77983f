"""`python`: a program in the sandbox, each call a fresh one."""

import ast
from typing import Any

from posttrain.checks import sandbox
from posttrain.data.rows import Tool
from posttrain.errors import UserError

LIMITS = sandbox.Limits(seconds=10.0, memory=512 << 20, processes=16, output=1 << 14)
MOST_CODE = 20_000
"""Characters of a program."""
MOST_STDERR = 1_000
"""Characters at the end of stderr that are told: where the reason stands."""
WORDS = {"time": "ran too long", "memory": "needed too much memory", "output": "wrote too much"}

SCHEMA: Tool = {
    "type": "function",
    "function": {
        "name": "python",
        "description": (
            "Runs a Python program with the standard library and returns what it prints, and the value of its last "
            "line. Nothing is kept from one call to the next; there is no network."
        ),
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "the program"}},
            "required": ["code"],
        },
    },
}


def require_sandbox() -> None:
    """Raise UserError where code cannot be run here."""
    if not sandbox.unsandboxed() and (why := sandbox.fault()):
        raise UserError(f"tool python: {why}")


def run(code: str) -> dict[str, Any]:
    """What the program printed, and what it said of its failure: `stdout`, `stderr`, `error`; only what there is."""
    if len(code) > MOST_CODE:
        raise ValueError(f"the program has {len(code):,} characters; {MOST_CODE:,} are taken")
    ran = sandbox.run_python(shown(code), LIMITS)
    found = {"stdout": ran.stdout, "stderr": ran.stderr[-MOST_STDERR:]}
    if ran.ended != "exit":
        found["error"] = f"the program {WORDS[ran.ended]} and was ended"
    elif ran.code:
        found["error"] = f"the program ended with code {ran.code}"
    return {name: text for name, text in found.items() if text} or {"stdout": ""}


def shown(code: str) -> str:
    """The program with its last line printed where that is an expression with a value, as an interpreter does."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code  # the interpreter will say what is wrong with it
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return code
    last = tree.body[-1]
    echo = ast.parse("(lambda value: None if value is None else print(repr(value)))(0)").body[0]
    assert isinstance(echo, ast.Expr) and isinstance(echo.value, ast.Call)
    echo.value.args = [last.value]
    tree.body[-1] = echo
    return ast.unparse(ast.fix_missing_locations(tree))
