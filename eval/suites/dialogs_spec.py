"""The suite `eval.suites.dialogs`. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from eval.suites.spec import PROMPT_TOKENS, SuiteConfig, suite_spec
from posttrain.machine import Machine
from posttrain.stages import Size


class DialogsConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.dialogs`."""

    turns: int = Field(3, ge=1, le=8)
    """What the user asks for, one after the other."""


def estimate(config: DialogsConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Every turn is read at least three times: the request, a result, and all that came before."""
    return Size(rows=config.n, tokens=3 * config.n * config.turns * PROMPT_TOKENS, note="made")


SPEC = suite_spec("dialogs", DialogsConfig, estimate=estimate)
