"""The stage `synth.curate.semantic_dedupe`: of rows that mean the same the best is kept. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config, operational
from posttrain.estimate import forward_memory, forward_seconds
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec
from synth.curate.wiring import Text, incoming, tables


class SemanticDedupeConfig(Config):
    """The recipe's `semantic_dedupe:` section (P 4.2.3: RoBERTa, complete dialogs, quality × difficulty, greedy)."""

    encoder: str = Field(min_length=1)
    """Key of `models:`: any model that `transformers` opens as AutoModel; its last states are averaged over a text."""
    text: Text = "both"
    """What is compared: the prompt, the answer, or the whole conversation."""
    max_tokens: int = Field(512, ge=1)
    """A longer text is compared by its first so many tokens, or as many as the encoder takes."""
    threshold: float = Field(0.95, gt=-1, le=1)
    """A row stays when its cosine similarity to every row kept in its cluster is below this. Encoders differ: look at
    the rejects' `cosine` before a long run."""
    cluster_rows: int = Field(1000, ge=2)
    """Rows of a cluster on average; only rows of one cluster are compared."""
    order: tuple[str, ...] = ("quality", "difficulty")
    """Rows with the highest product of these labels are kept first; `reward` is one too. A label that no row has is
    left out of the product, and a row without one that others have comes last."""
    batch_size: int = operational(32, ge=1)
    """Texts that are encoded together."""


def wire(config: SemanticDedupeConfig, scope: Scope) -> dict[str, Any]:
    return {"rows": tables("rows", scope), "encoder": scope.model(config.encoder)}


def estimate(config: SemanticDedupeConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """The encoder reads every row once."""
    there, parameters = incoming(sizes), sizes["encoder"].parameters
    tokens = min(there.tokens, there.rows * config.max_tokens)
    return Size(
        rows=there.rows, tokens=tokens, parameters=parameters, memory=forward_memory(parameters),
        seconds=forward_seconds(parameters, tokens, machine), made={"rows": there},
    )  # fmt: skip


SPEC = StageSpec(
    module="synth.curate.semantic_dedupe",
    version=1,
    Config=SemanticDedupeConfig,
    provides=lambda config: ("rows",),
    replaces=lambda config: ("rows",),
    wire=wire,
    estimate=estimate,
)
