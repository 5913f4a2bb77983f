"""The base of every typed config, and the line between what means something and what only costs something."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Frozen; refuses unknown keys and numbers that are not finite. A docstring under a field is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


def operational(default: Any, **constraints: Any) -> Any:
    """A field that changes speed or memory but never a result, so it does not enter a stage's key."""
    return Field(default, json_schema_extra={"operational": True}, **constraints)


def semantic(config: BaseModel) -> dict[str, Any]:
    """The config as JSON values without its operational fields: what a stage's key is made of."""
    kept: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("operational"):
            continue
        value = getattr(config, name)
        kept[name] = semantic(value) if isinstance(value, BaseModel) else _plain(value)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return semantic(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
