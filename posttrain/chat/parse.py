"""Generated text → assistant message, and the JSON of tool calls.

One call is `{"name": "f", "parameters": {...}}`, several are a JSON list of two or more of these. The shape is strict:
text that is nearly a call is content, so that a verifier sees it as what it is.
"""

import json
import math
from typing import Any

from posttrain.data.rows import Message


def parse_message(text: str) -> Message:
    """The assistant message that `text` (without the end of turn) says; content is stripped, as the template does."""
    calls = parse_calls(text)
    if calls is None:
        return {"role": "assistant", "content": text.strip()}
    tool_calls = [{"type": "function", "function": call} for call in calls]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}


def parse_calls(text: str) -> list[dict[str, Any]] | None:
    """`[{"name": str, "arguments": dict}]` when the whole text is one call or a list of several, else None."""
    text = text.strip()
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # not JSON, a key twice, NaN, lone surrogates, thousands of brackets or digits
        return None
    calls = value if isinstance(value, list) and len(value) > 1 else [value]
    return [{"name": c["name"], "arguments": c["parameters"]} for c in calls] if all(map(_is_call, calls)) else None


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "parameters"}
        and isinstance(value["name"], str)
        and isinstance(value["parameters"], dict)
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    if math.isfinite(value := float(digits)):
        return value
    raise ValueError(f"{digits} is too large")
