"""The stage `synth.curate.difficulty`: how hard what a row asks is, by judge, by number of tags. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from synth.curate.wiring import Asking, asking_size, question, tables


class DifficultyConfig(Asking):
    """The recipe's `difficulty:` section. Labels rows with `difficulty` (the judge's points, else the number of tags)
    and `tags`."""

    judge: str | None = None
    """Key of `models:` that rates the dialog on a three-point scale (P 4.2.3); None asks none."""
    tagger: str | None = None
    """Key of `models:` that tags the intentions of the prompt, as Instag does: more tags, harder; None asks none."""
    least: float = Field(0.0, ge=0)
    """Rows of a lower difficulty are left out; those without one stay. 0 keeps all."""

    @model_validator(mode="after")
    def _asks_someone(self) -> "DifficultyConfig":
        if not (self.judge or self.tagger):
            raise ValueError("name a model as judge or as tagger")
        return self


def wire(config: DifficultyConfig, scope: Scope) -> dict[str, Any]:
    inputs: dict[str, Any] = {"rows": tables("rows", scope)}
    if config.judge:
        inputs |= {"judge": scope.model(config.judge, served=True), "question": question("difficulty")}
    if config.tagger:
        inputs |= {"tagger": scope.model(config.tagger, served=True), "tags_question": question("tags")}
    return inputs


def estimate(config: DifficultyConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    return asking_size(config, sizes, machine, ("judge", "tagger"))


SPEC = StageSpec(
    module="synth.curate.difficulty",
    version=1,
    Config=DifficultyConfig,
    provides=lambda config: ("rows",),
    replaces=lambda config: ("rows",),
    wire=wire,
    estimate=estimate,
)
