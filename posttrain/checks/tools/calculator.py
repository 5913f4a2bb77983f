"""`calculator`: exact arithmetic by sympy, of expressions that are read by their syntax tree and never run as code.

Sizes are bounded before anything is computed, so that no expression runs for long or fills the memory.
"""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from posttrain.data.rows import Tool

MOST_TEXT = 500
"""Characters of an expression."""
MOST_BITS = 13_000
"""Of a whole number on the way, and of a fraction's two parts."""
MOST_FACTORIAL = 1_000
MOST_EXACT = 80
"""Characters of an exact form that is told."""
DIGITS = 15
"""Of a result that is no whole number."""

SCHEMA: Tool = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": (
            "Computes one expression exactly: + - * / // % ** and brackets, pi, e, sqrt, cbrt, exp, log (natural, or "
            "log(x, base)), log10, log2, sin, cos, tan, asin, acos, atan, abs, floor, ceil, round, factorial, "
            "binomial, gcd, lcm, min, max. Angles are in radians."
        ),
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "for example sqrt(2) * (3/4 + 1)"}},
            "required": ["expression"],
        },
    },
}
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "\0"})


def run(expression: str) -> dict[str, Any]:
    """`result`, a whole number or one of 15 digits, and `exact` where that says more. Raises ValueError for what is no
    expression of numbers, has no value, or is too large."""
    import sympy

    value = _value(parsed(expression))
    if not value.is_number or value.has(sympy.zoo, sympy.nan, sympy.oo) or value.is_real is False:
        raise ValueError(
            "the expression has no real value: a division by zero, or a root or logarithm outside its range"
        )
    if value.is_Integer:
        return {"result": int(value)}
    near = float(sympy.N(value, DIGITS))
    if near in (float("inf"), float("-inf")):
        return {"result": str(sympy.N(value, DIGITS))}
    exact = str(value)
    says_all = (value.is_Rational and sympy.Rational(repr(near)) == value) or len(exact) > MOST_EXACT
    return {"result": near} if says_all else {"result": near, "exact": exact}


def parsed(expression: str) -> ast.expr:
    """The syntax tree of an expression. Raises ValueError for what is none."""
    if len(expression) > MOST_TEXT:
        raise ValueError(f"the expression has {len(expression):,} characters; {MOST_TEXT} are taken")
    text = expression.strip().translate(SIGNS).replace("\0", "**")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression.strip()!r} is no expression of numbers") from error


def _value(node: ast.expr) -> Any:
    """A sympy number."""
    import sympy

    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and _is_finite(node.value):
        return _bounded(sympy.Rational(str(node.value)))
    if isinstance(node, ast.Name) and node.id in ("pi", "e", "E"):
        return sympy.pi if node.id == "pi" else sympy.E
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left), _value(node.right)
        return _power(left, right) if isinstance(node.op, ast.Pow) else _operated(type(node.op), left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node.func.id, [_value(argument) for argument in node.args])
    raise ValueError(f"{ast.unparse(node)!r} is no number, and no operation on numbers that there is")


def _is_finite(value: int | float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)


OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip


def _operated(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if kind in (ast.Div, ast.FloorDiv, ast.Mod) and right == 0:
        raise ValueError("a division by zero")
    return _bounded(OPERATORS[kind](left, right))


def _power(base: Any, exponent: Any) -> Any:
    if base == 0 and exponent.is_negative:
        raise ValueError("a division by zero")
    if base not in (0, 1, -1) and _size(exponent) * max(1, _bits(base)) > MOST_BITS:
        raise ValueError("a power is too large to be computed")
    return _bounded(base**exponent)


def _size(exponent: Any) -> int:
    """How many times a base is multiplied at most before a root is taken of it."""
    if exponent.is_Rational:
        return abs(int(exponent.p))
    return abs(int(exponent.evalf())) if exponent.is_real else MOST_BITS + 1


def _called(name: str, values: list[Any]) -> Any:
    if name not in FUNCTIONS:
        raise ValueError(f"there is no function {name}; there are {', '.join(FUNCTIONS)}")
    low, high = FUNCTIONS[name]
    if not low <= len(values) <= high:
        raise ValueError(f"{name} takes {low if low == high else f'{low} or more'} numbers, not {len(values)}")
    if name in ("factorial", "binomial") and not all(v.is_Integer and abs(v) <= MOST_FACTORIAL for v in values):
        raise ValueError(f"{name} takes whole numbers up to {MOST_FACTORIAL:,}")
    if name in ("gcd", "lcm") and not all(v.is_Integer for v in values):
        raise ValueError(f"{name} takes whole numbers")
    return _power(_value(ast.Name("e")), values[0]) if name == "exp" else _bounded(_applied(name, values))


def _applied(name: str, values: list[Any]) -> Any:
    import sympy

    if name in ("log10", "log2"):
        return sympy.log(values[0], int(name.removeprefix("log")))
    if name == "round":
        places = int(values[1]) if len(values) == 2 else 0
        if abs(places) > DIGITS:
            raise ValueError(f"round takes up to {DIGITS} places")
        scale = sympy.Integer(10) ** places
        return sympy.floor(values[0] * scale + sympy.Rational(1, 2)) / scale
    own = {"abs": sympy.Abs, "ceil": sympy.ceiling, "min": sympy.Min, "max": sympy.Max}
    function = own.get(name) or getattr(sympy, name)
    return function(list(values)) if name in ("gcd", "lcm") else function(*values)


FUNCTIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys("sqrt cbrt exp log10 log2 sin cos tan asin acos atan abs floor ceil factorial".split(), (1, 1)),
    "log": (1, 2), "round": (1, 2), "binomial": (2, 2),
    **dict.fromkeys(("gcd", "lcm", "min", "max"), (1, 100)),
}  # fmt: skip
"""Name → the least and the most numbers it takes."""


def _bounded(value: Any) -> Any:
    if _bits(value) > MOST_BITS:
        raise ValueError("a number on the way is too large to be computed")
    return value


def _bits(value: Any) -> int:
    """Of the largest whole number that stands in a value."""
    import sympy

    return max((int(max(abs(n.p), n.q)).bit_length() for n in value.atoms(sympy.Rational)), default=0)
