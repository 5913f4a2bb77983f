"""A recipe's values as plain Python, and how one mapping is laid over another."""

from typing import Any

Values = dict[str, Any]
Keys = tuple[str, ...]
"""The path of a key: `("round", "sft", "epochs")`."""


def merge(base: dict[str, Any], changes: dict[str, Any]) -> None:
    """Lay `changes` over `base` in place: mappings key by key, anything else replaces. Null takes a key away."""
    for key, value in changes.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
