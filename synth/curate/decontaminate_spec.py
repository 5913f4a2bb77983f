"""The stage `synth.curate.decontaminate`: what repeats a prompt that checkpoints are evaluated on goes. Torch-free."""

from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.stages import Scope, StageSpec
from synth.curate.wiring import Over, estimate, tables


class DecontaminateConfig(Config):
    """The recipe's `decontaminate:` section. Every evaluation prompt that a stage before it made is looked for: of
    each, the user's messages, since system prompts and tools are often shared with training on purpose."""

    over: Over = "rows"
    """What is searched: the rows or pairs of this round (prompt and answers), or the prompts."""
    ngram: int = Field(8, ge=1)
    """Words of a run that counts as an overlap (P 5.1.4: 8; 13 is common too). An evaluation prompt with fewer words is
    only found as a whole message."""
    overlap: float | None = Field(0.5, ge=0, le=1)
    """Share of an evaluation prompt's words that must lie in runs which the row has too; 0: one run is enough; None:
    only messages that equal an evaluation prompt up to case, punctuation and white space."""


def wire(config: DecontaminateConfig, scope: Scope) -> dict[str, Any]:
    suites = scope.all_rounds("eval_prompts")
    if not suites:
        raise UserError(
            "no stage before it makes eval prompts; add `heldout:`, or `read:` of format heldout, to `setup:`"
        )
    return {"rows": tables(config.over, scope), "eval_prompts": suites}


SPEC = StageSpec(
    module="synth.curate.decontaminate",
    version=1,
    Config=DecontaminateConfig,
    provides=lambda config: (config.over,),
    replaces=lambda config: (config.over,),
    wire=wire,
    estimate=estimate,
)
