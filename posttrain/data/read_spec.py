"""The stage `posttrain.data.read`: a person's JSONL file as a table. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec

Format = Literal["messages", "prompts", "preferences", "heldout"]
KIND_OF: dict[str, str] = {"messages": "rows", "prompts": "prompts", "preferences": "pairs", "heldout": "eval_prompts"}
"""What later stages ask the plan for."""


class ReadConfig(Config):
    """The recipe's `read:` section."""

    path: str = Field(min_length=1)
    """A JSONL file, seen from the recipe's folder."""
    format: Format = "messages"
    """`messages`: conversations to train on; `prompts`: conversations to answer; `preferences`: chosen and rejected;
    `heldout`: prompts that checkpoints are evaluated on and nothing is trained on."""
    capability: str = Field("general", min_length=1)
    """The capability of lines that name none."""
    language: str = Field("en", min_length=1)
    """The language of lines that name none."""
    rows: int = Field(0, ge=0)
    """The first so many different rows are taken; 0 takes all."""


def wire(config: ReadConfig, scope: Scope) -> dict[str, Any]:
    return {"file": scope.file(config.path)}


def estimate(config: ReadConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    file = sizes["file"]
    rows = min(config.rows, file.rows) if config.rows and file.rows else config.rows or file.rows
    return Size(rows=rows, tokens=file.tokens * rows // max(1, file.rows), note=f"from {config.path}")


SPEC = StageSpec(
    module="posttrain.data.read",
    version=1,
    Config=ReadConfig,
    provides=lambda config: (KIND_OF[config.format],),
    wire=wire,
    estimate=estimate,
)
