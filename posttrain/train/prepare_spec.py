"""A model of `models:` with the chat template, date or place of tools that the recipe names. Torch-free.

The plan puts this stage before all others for every entry that has one of these keys; nobody writes it as a stage.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec

Template = Literal["llama-3.1", "llama-3.1-hf", "llama-3.1-meta"]
"""The keys of `posttrain.chat.TEMPLATES`, which a spec need not import."""
ToolsIn = Literal["user", "system"]
KIND = "prepared_model"
"""What the stage provides: a checkpoint that nothing was trained for, so it is never a round's result."""


class PrepareConfig(Config):
    """What the entry of `models:` says."""

    model: str = Field(min_length=1)
    """Its key."""
    revision: str | None = None
    """Commit or tag of a hub model; None takes what the hub serves."""
    template: Template | None = None
    """Saved in place of the tokenizer's own template; None keeps that one, as its marked twin."""
    date: str | None = None
    """What the template prints as today; None is 26 Jul 2024."""
    tools_in: ToolsIn = "user"
    """The turn that lists tools with a schema."""


def wire(config: PrepareConfig, scope: Scope) -> dict[str, Any]:
    return {"model": scope.model(config.model)}


def estimate(config: PrepareConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Files are linked, so it costs next to nothing."""
    template = f"template {config.template}" if config.template else "its own template"
    date = f", dated {config.date}" if config.date else ""
    return Size(parameters=sizes["model"].parameters, note=f"{template}{date}, tools in the {config.tools_in} turn")


SPEC = StageSpec(
    module="posttrain.train.prepare",
    version=1,
    Config=PrepareConfig,
    provides=lambda config: (KIND,),
    wire=wire,
    estimate=estimate,
)
