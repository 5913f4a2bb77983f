"""The stage `posttrain.data.read`: a person's file or data set as a table. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Scope, Size, StageSpec

Format = Literal[
    "auto", "messages", "sharegpt", "alpaca", "prompt_completion", "prompts", "preferences", "heldout"
]  # fmt: skip
PREFERENCE_KINDS = ("preferences", "pairs")
KIND_OF: dict[str, tuple[str, ...]] = {
    "auto": ("rows",), "messages": ("rows",), "sharegpt": ("rows",), "alpaca": ("rows",),
    "prompt_completion": ("rows",), "prompts": ("prompts",), "preferences": PREFERENCE_KINDS,
    "heldout": ("eval_prompts",),
}  # fmt: skip
"""What later stages ask the plan for. A file of preferences trains a reward model as well as DPO."""
RECORD_BYTES = 1_000
"""About what a record of a binary file takes, for the plan."""


class ReadConfig(Config):
    """The recipe's `read:` section; `docs/rows.md` shows each format."""

    path: str = Field(min_length=1)
    """A file (.jsonl, .jsonl.gz, .json, .parquet) or folder, seen from the recipe's folder, or a hub data set."""
    split: str = Field("train", min_length=1)
    """Which split of a data set; files have none."""
    subset: str | None = None
    """Which configuration of a hub data set; None takes its default."""
    revision: str | None = None
    """Commit or tag of a hub data set; None takes what the hub serves, and the plan says that it is not pinned."""
    format: Format = "auto"
    """`auto`: conversations to train on, told apart by their keys; or which: `messages`, `sharegpt`, `alpaca`,
    `prompt_completion`. Other kinds: `prompts`: conversations to answer; `preferences`: better and worse answers, for
    the reward model and DPO; `heldout`: prompts that checkpoints are evaluated on and nothing is trained on."""
    capability: str = Field("general", min_length=1)
    """The capability of records that name none."""
    language: str = Field("en", min_length=1)
    """The language of records that name none."""
    rows: int = Field(0, ge=0)
    """The first so many different rows are taken, and no more is read; 0 takes all."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a record that cannot be read does: stop the run, with all such records counted and the first named, or be
    counted and kept in the table `rejects`."""


def wire(config: ReadConfig, scope: Scope) -> dict[str, Any]:
    return {"file": scope.data(config.path, config.revision)}


def estimate(config: ReadConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    file = sizes["file"]
    there = file.tokens * 4 // RECORD_BYTES if config.path.endswith((".parquet", ".gz")) else file.rows
    rows = min(config.rows, there) if config.rows and there else config.rows or there
    note = f"from {config.path}" + (f", {file.note}" if file.note else "")
    return Size(rows=rows, tokens=file.tokens * rows // max(1, there), note=note)


SPEC = StageSpec(
    module="posttrain.data.read",
    version=2,
    Config=ReadConfig,
    provides=lambda config: KIND_OF[config.format],
    wire=wire,
    estimate=estimate,
)
