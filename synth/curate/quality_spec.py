"""The stage `synth.curate.quality`: rows that the reward model or a judge finds good stay. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from synth.curate.wiring import Asking, asking_size, question, tables


class QualityConfig(Asking):
    """The recipe's `quality:` section. Labels rows with `quality`, 0 to 1: the higher of the share of its capability's
    rows with no higher reward, and the judge's points over the most there are."""

    reward_share: float | None = Field(0.25, gt=0, le=1)
    """Share of each capability's rows, best reward first, that is good by the reward model (P 4.2.3: the top quartile);
    rows equal to the last of them are good too. None does not ask it."""
    judge: str | None = None
    """Key of `models:` that rates rows: good by the judge is its highest rating, 3 of 3, of code 2 of 2 (P 4.2.3).
    None asks none."""
    code: tuple[str, ...] = ("code",)
    """Capabilities that are rated as code."""
    keep: Literal["either", "both", "all"] = "either"
    """`either`: rows good by the reward model or the judge (the paper: best recall); `both`: good by each that is
    asked; `all`: every row, with its label."""

    @model_validator(mode="after")
    def _asks_someone(self) -> "QualityConfig":
        if self.reward_share is None and self.judge is None:
            raise ValueError("give reward_share or judge: neither is asked")
        return self


def wire(config: QualityConfig, scope: Scope) -> dict[str, Any]:
    inputs: dict[str, Any] = {"rows": tables("rows", scope)}
    if config.judge:
        questions = {name: question(name) for name in ("quality_general", "quality_code")}
        inputs |= {"judge": scope.model(config.judge, served=True), **questions}
    return inputs


def estimate(config: QualityConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    return asking_size(config, sizes, machine, ("judge",))


SPEC = StageSpec(
    module="synth.curate.quality",
    version=1,
    Config=QualityConfig,
    provides=lambda config: ("rows",),
    replaces=lambda config: ("rows",),
    wire=wire,
    estimate=estimate,
)
