"""`from: file`: prompts that stand in a file. Torch-free."""

from collections.abc import Mapping
from typing import Any

from posttrain.stages import Amount
from synth.capabilities import OTHER_PROMPT_TOKENS
from synth.sources import Expected, PipelineSpec, SourceConfig


class FileConfig(SourceConfig):
    """Prompts of a file."""

    path: str
    """A prompts JSONL, seen from the recipe's folder; its lines that name another capability are left out, so that
    entries may share a file."""


def estimate(capability: str, config: FileConfig, sizes: Mapping[str, Any]) -> Expected:
    """Mean tokens of a prompt are what the file's bytes say."""
    file = sizes.get("file")
    each = float(file.of("prompts").each) if file is not None and file.rows else OTHER_PROMPT_TOKENS
    return Expected(made={"prompts": Amount(config.rows, int(config.rows * each))})


PIPELINE = PipelineSpec(
    module="synth.pipelines.file",
    version=1,
    Config=FileConfig,
    estimate=estimate,
    files=lambda config: {"file": config.path},
)
