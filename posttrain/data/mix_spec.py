"""The stage `posttrain.data.mix`: rows or pairs of several stages in given proportions. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.config import Config
from posttrain.data.rows import Rating
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec

ANY = "any"


class Part(Config):
    """One part of a mix: which rows, how much of them. A bare number is its weight."""

    weight: float | None = Field(None, ge=0)
    """Its share of the mix, in relation to the other parts' weights; 0 leaves it out. None, then for every part: all
    that its epochs and cap allow."""
    capability: tuple[str, ...] = ()
    """Capabilities whose rows it takes; empty takes the part's own name, `[any]` all."""
    language: tuple[str, ...] = ()
    """The same for languages; empty takes all, here and below."""
    source: tuple[str, ...] = ()
    """The same for the rows' sources: a file's name, a teacher's."""
    round: tuple[int, ...] = ()
    """The same for rounds in which the rows were made; what `setup:` made is of round 0."""
    rating: tuple[Rating, ...] = ()
    """Of pairs: annotators' ratings to take; the paper trains on `significantly_better` and `better` (P 4.2.1)."""
    least: dict[str, float] = {}
    """Score → its least value: `reward` of a row, `margin` of a pair, or a number that curation noted in a row's labels
    (`quality`, `difficulty`). A row without the score is left out."""
    epochs: float = Field(1.0, gt=0, le=100)
    """Passes over its rows at most: 1 takes each once at most, 3 up to three times, 0.5 half of them at most."""
    cap: int = Field(0, ge=0)
    """Most examples of it (tokens, with `by: tokens`); 0 is no cap."""

    @model_validator(mode="before")
    @classmethod
    def _from_weight(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) else value

    @field_validator("capability", "language", "source", "round", "rating", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value


class MixConfig(Config):
    """The recipe's `mix:` section. Source of the idea: P 4.2.2, tables 6 and 7."""

    of: Literal["rows", "ranked", "annotated", "both"] = "rows"
    """What is mixed: rows for SFT, or for DPO the pairs that `select` ranked, those annotated, or both; pairs read
    from a file are of either kind."""
    parts: dict[str, Part] = {}
    """Name → part. A part without filters takes the capability of its name. A row that two parts would take is a
    fault. Empty: every row there is, with a part for each capability."""
    by: Literal["examples", "tokens"] = "examples"
    """What weights, caps and shares count."""
    tokenizer: str = "base"
    """With `by: tokens`, the key of `models:` whose tokenizer counts them (of texts, calls and tools, without
    the template's own tokens). Otherwise lengths are only estimated, as a quarter of the stored bytes."""
    total: int = Field(0, ge=0)
    """Size of the mix, in examples or tokens; 0 takes the most at which no part falls short of its share."""
    on_shortfall: Literal["error", "repeat"] = "error"
    """When a part cannot fill its share of `total` within its epochs and cap: stop, or go over its rows again."""
    rounds: Literal["this", "all"] = "this"
    """Mix what this round made, or all rounds so far."""

    @field_validator("parts")
    @classmethod
    def _some_weight(cls, parts: dict[str, Part]) -> dict[str, Part]:
        weights = [part.weight for part in parts.values()]
        if None in weights and any(weight is not None for weight in weights):
            without = [name for name, part in parts.items() if part.weight is None]
            raise ValueError(f"some parts have a weight and {', '.join(without)} none; give it to all or to none")
        if weights and None not in weights and not any(weights):
            raise ValueError("at least one weight must be above 0")
        return parts

    @model_validator(mode="after")
    def _fits_what_is_mixed(self) -> "MixConfig":
        rated = [name for name, part in self.parts.items() if part.rating]
        if self.of == "rows" and rated:
            raise ValueError(f"part {rated[0]} asks for ratings, which rows do not have; set `of:` to a kind of pairs")
        again = [name for name, part in self.parts.items() if part.epochs > 1]
        if self.of != "rows" and (again or self.on_shortfall == "repeat"):
            raise ValueError("a pair stands once in a mix, as DPO counts a comparison once; raise dpo.epochs instead")
        return self


INPUTS = {"rows": ("rows",), "ranked": ("pairs",), "annotated": ("preferences",), "both": ("pairs", "preferences")}
"""What each value of `of` asks the plan for; the inputs are named so too."""


def wire(config: MixConfig, scope: Scope) -> dict[str, Any]:
    of = scope.this_round if config.rounds == "this" else scope.all_rounds
    sources = {kind: of(kind) for kind in INPUTS[config.of]}
    if not any(sources.values()):
        kinds = " or ".join(INPUTS[config.of])
        raise UserError(f"{scope.name}: no stage before it makes {kinds}; add synthesize, select, annotate or read")
    counter = scope.model(config.tokenizer) if config.by == "tokens" else None
    return {**sources, "tokenizer": counter}


def estimate(config: MixConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    found = [size.of(kind) for kind in INPUTS[config.of] for size in sizes[kind]]
    rows, tokens = sum(size.rows for size in found), sum(size.tokens for size in found)
    there = tokens if config.by == "tokens" else rows
    share = min(1.0, config.total / max(1, there)) if config.total else 1.0
    return Size(rows=int(rows * share), tokens=int(tokens * share), note=f"of {rows:,} rows")


SPEC = StageSpec(
    module="posttrain.data.mix",
    version=2,
    Config=MixConfig,
    provides=lambda config: ("sft_data",) if config.of == "rows" else ("dpo_data",),
    wire=wire,
    estimate=estimate,
)
