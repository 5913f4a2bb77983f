"""The stage `synth.curate.topics`: what each row is about, in a model's words or of a list. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from synth.curate.wiring import Asking, asking_size, question, tables


class TopicsConfig(Asking):
    """The recipe's `topics:` section. Labels rows with `topic`."""

    model: str = Field(min_length=1)
    """Key of `models:` that is asked."""
    topics: tuple[str, ...] = ()
    """The labels there are, of which it must name one; empty leaves it free (one to four words)."""
    drop: tuple[str, ...] = ()
    """Rows of these topics are left out."""

    @model_validator(mode="after")
    def _drops_known_ones(self) -> "TopicsConfig":
        unknown = sorted(set(self.drop) - set(self.topics)) if self.topics else []
        if unknown:
            raise ValueError(f"drop names {unknown[0]!r}, which is none of topics")
        return self


def wire(config: TopicsConfig, scope: Scope) -> dict[str, Any]:
    model = scope.model(config.model, served=True)
    return {"rows": tables("rows", scope), "model": model, "question": question("topic")}


def estimate(config: TopicsConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    return asking_size(config, sizes, machine, ("model",))


SPEC = StageSpec(
    module="synth.curate.topics",
    version=1,
    Config=TopicsConfig,
    provides=lambda config: ("rows",),
    replaces=lambda config: ("rows",),
    wire=wire,
    estimate=estimate,
)
