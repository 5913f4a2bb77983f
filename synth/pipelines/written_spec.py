"""`from: path/to/own.yaml`: a pipeline of prompts only, written as one YAML file. Torch-free.

prompt: |                       # Jinja, asked of the teacher for each seed; its text is the new prompt
  Write a question that a cook could ask about {{ dish }}.
seeds: [{dish: risotto}, {dish: pho}]        # or `seeds:` of the recipe's entry, a JSONL of such mappings
language: en
system: You are a chef.         # optional: a system prompt before the new prompt, Jinja too
answer: true                    # whether the teacher answers each prompt, which makes a dialog
check: {name: needle, args: {needles: ["{{ dish }}"]}}   # optional: the verifier of its answers
checks: {language: true, different: 0.7, judge: 7}       # operators that keep or drop
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from posttrain.config import Config
from posttrain.data.rows import LANGUAGES
from posttrain.errors import UserError
from posttrain.rounds.tree import read_yaml
from posttrain.stages import Amount, External
from synth.prompts import Wording
from synth.sources import Expected, PipelineSpec, SourceConfig

TEXT_TOKENS = 60
"""What a written template asks and gets, for estimates."""


class Checks(Config):
    """Operators by name; what is left out is not done."""

    language: bool = True
    """Drop prompts and answers that are not in the file's `language`."""
    different: float | None = Field(0.7, gt=0, le=1)
    """Drop a prompt that shares this share of its pairs of words with another; None keeps all different ones."""
    judge: float | None = Field(None, ge=1, le=10)
    """Drop answers that the teacher, as judge, grades below this, of 1 to 10; None asks no judge."""


class CheckBy(Config):
    """A verifier of `posttrain.checks.verifiers`; texts among its args are Jinja."""

    name: str
    """Such as `needle`."""
    args: dict[str, Any] = {}
    """Its arguments."""


class WrittenFile(Config):
    """What stands in the YAML file."""

    prompt: str = Field(min_length=1)
    """Jinja, asked of the teacher for each seed; its text is the new prompt."""
    seeds: tuple[dict[str, Any], ...] = ()
    """The variables of each request; empty where the recipe's entry names a file of them."""
    language: str = Field("en", pattern=f"^({'|'.join(LANGUAGES)})$")
    """Of prompts and answers."""
    system: str | None = None
    """Jinja: a system prompt before each new prompt; None has none."""
    answer: bool = False
    """Whether the teacher answers each prompt, which makes a dialog."""
    check: CheckBy | None = None
    """The verifier of its answers; None where no program can tell."""
    checks: Checks = Checks()
    """Operators that keep or drop."""


class WrittenConfig(SourceConfig):
    """A pipeline in a YAML file, which `from:` names."""

    seeds: str | None = None
    """A JSONL file whose lines are the variables of a request each; None takes the YAML's own."""


def read_written(path: Path) -> tuple[WrittenFile, dict[str, Wording]]:
    """The file, typed, and its templates by key. Raises UserError with file and line."""
    tree = read_yaml(path)
    try:
        file = WrittenFile.model_validate(tree.values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        keys = tuple(map(str, fault["loc"]))
        raise UserError(f"{tree.where(keys)} {'.'.join(keys)}: {fault['msg'][0].lower()}{fault['msg'][1:]}") from None
    texts = {"prompt": file.prompt, "system": file.system}
    return file, {name: _wording(text, tree.where((name,))) for name, text in texts.items() if text}


def _wording(text: str, place: str) -> Wording:
    """A template in the file; that of a block begins on the line after its key."""
    name, _, line = place.rpartition(":")
    return Wording(text, name, int(line) + ("\n" in text))


def look(config: WrittenConfig, files: Mapping[str, External]) -> None:
    """Check the file and its templates, where its seeds stand in it too."""
    file, wordings = read_written(Path(files["pipeline_file"].source))
    if bool(file.seeds) == bool(config.seeds):
        raise UserError(f"{config.from_}: give seeds either in it or in the recipe's entry, as a file")
    for place, seed in enumerate(file.seeds):
        for wording in wordings.values():
            wording.check(seed if place == 0 or seed.keys() != file.seeds[0].keys() else file.seeds[0])


def estimate(capability: str, config: WrittenConfig, sizes: Mapping[str, Any]) -> Expected:
    prompts = Amount(config.rows, config.rows * TEXT_TOKENS)
    return Expected(config.rows, config.rows * TEXT_TOKENS, config.rows * TEXT_TOKENS, {"prompts": prompts})


PIPELINE = PipelineSpec(
    module="synth.pipelines.written",
    version=2,
    Config=WrittenConfig,
    estimate=estimate,
    files=lambda config: {"pipeline_file": config.from_} | ({"seeds": config.seeds} if config.seeds else {}),
    look=look,
)
