"""The stage `synth.curate.clean`: rows that break a rule are left out, apologies are balanced. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from posttrain.config import Config
from posttrain.stages import StageSpec
from synth.curate.wiring import estimate, tables

Rule = Literal["empty", "unclosed_code", "language", "refusal", "repetition", "emoji", "exclamation", "apology"]
Share = Annotated[float, Field(ge=0, le=1)]
Phrase = Annotated[str, Field(min_length=2)]


class CleanConfig(Config):
    """The recipe's `clean:` section. Every assistant message of a row is looked at; the first rule that hits counts.
    Emoji, exclamation marks, repetition and language are judged on the text outside code."""

    empty: bool = True
    """Leave out answers with neither text nor calls."""
    unclosed_code: bool = True
    """Leave out answers whose code fence is never closed: they were cut."""
    language: bool = True
    """Leave out answers in another language than the row's, as far as `posttrain.checks.language` can tell."""
    language_letters: int = Field(20, ge=1)
    """An answer with fewer letters is not judged by its language."""
    language_sure: Share = 0.9
    """Least probability with which another of the six languages in Latin letters must be identified; of the rest the
    script or the words leave no doubt."""
    refusal: bool = True
    """Leave out answers that begin as a refusal does, in eight languages."""
    refusal_phrases: tuple[Phrase, ...] = ()
    """More beginnings of refusals, beside those of `posttrain/checks/phrases.py`."""
    repetition: Share | None = 0.3
    """Largest share of an answer's word runs that stood in it before; None leaves the rule out."""
    repetition_words: int = Field(4, ge=1)
    """Words of such a run."""
    emoji: float | None = Field(3.0, ge=0)
    """Most emoji in 100 words (a shorter answer counts as 100); None leaves the rule out."""
    exclamation: float | None = Field(4.0, ge=0)
    """Most exclamation marks in 100 words (a shorter answer counts as 100); None leaves the rule out."""
    excess: Literal["drop", "strip"] = "drop"
    """What happens to answers with too many of these two. `strip`: all their emoji go, and of exclamation marks in a
    row one stays; when there are still too many the row is left out."""
    apology: Share | None = 0.05
    """Largest share of a capability's rows that may apologise; of the others so many, chosen by seed, are left out.
    None leaves the rule out."""
    apology_phrases: tuple[Phrase, ...] = ()
    """More apologies, beside those of `posttrain/checks/phrases.py`."""
    exempt: dict[str, tuple[Rule, ...]] = {"safety": ("refusal", "apology"), "factuality": ("refusal", "apology")}
    """Capability → rules that do not hold for it."""

    @field_validator("apology")
    @classmethod
    def _a_share(cls, apology: float | None) -> float | None:
        return None if apology == 1 else apology


SPEC = StageSpec(
    module="synth.curate.clean",
    version=1,
    Config=CleanConfig,
    provides=lambda config: ("rows",),
    replaces=lambda config: ("rows",),
    wire=lambda config, scope: {"rows": tables("rows", scope)},
    estimate=estimate,
)
