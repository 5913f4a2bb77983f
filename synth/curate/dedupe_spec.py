"""The stage `synth.curate.dedupe`: of equal and nearly equal texts one is kept. Torch-free."""

from pydantic import Field, model_validator

from posttrain.config import Config
from posttrain.stages import StageSpec
from synth.curate.wiring import Over, Text, estimate, tables


class DedupeConfig(Config):
    """The recipe's `dedupe:` section. Tools are not compared."""

    over: Over = "rows"
    """What is thinned: the rows or pairs of this round, or the prompts."""
    text: Text = "both"
    """What is compared: the prompt (all messages before the answer), the answer, or the whole conversation."""
    keep: str = ""
    """Which of the equals stays: that of the highest `reward`, `margin` (of pairs) or label of that name; where those
    are equal, or this is empty, the first by id."""
    threshold: float | None = Field(0.8, gt=0, le=1)
    """Texts whose sets of word runs have this Jaccard similarity or more are near duplicates; None: only texts that are
    equal up to white space."""
    shingle: int = Field(3, ge=1)
    """Words of a run."""
    permutations: int = Field(128, ge=8, multiple_of=8)
    """Length of a MinHash signature."""
    recall: float = Field(0.98, gt=0, lt=1)
    """Least probability that two texts at the threshold are found; the bands of the hash index follow from it."""

    @model_validator(mode="after")
    def _has_answers(self) -> "DedupeConfig":
        if self.over == "prompts" and self.text == "answer":
            raise ValueError("prompts have no answers; compare text: prompt")
        return self


SPEC = StageSpec(
    module="synth.curate.dedupe",
    version=1,
    Config=DedupeConfig,
    provides=lambda config: (config.over,),
    replaces=lambda config: (config.over,),
    wire=lambda config, scope: {"rows": tables(config.over, scope)},
    estimate=estimate,
)
