"""What the specs of the curation stages share: which tables they read, what they stand in place of. Torch-free."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posttrain.artifacts import file_sha256
from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, External, Scope, Size

Over = Literal["rows", "prompts", "pairs"]
Text = Literal["prompt", "answer", "both"]


def tables(over: Over, scope: Scope) -> list[Any]:
    """The stages whose table is curated: the newest prompts, or all rows or pairs of this round.

    Raises UserError where there are none.
    """
    if over == "prompts":
        return [scope.newest("prompts")]
    found = scope.this_round(over)
    if not found:
        raise UserError(f"no stage before it in this round makes {over}; let it come after one that does")
    return found


def incoming(sizes: Mapping[str, Any], over: Over = "rows") -> Amount:
    """What a stage has to read: rows, or what it is over."""
    found = [size.of(over) for size in sizes["rows"]]
    return Amount(sum(amount.rows for amount in found), sum(amount.tokens for amount in found))


def estimate(config: Any, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Of a stage that runs no model: at most what comes in."""
    there = incoming(sizes, getattr(config, "over", "rows"))
    return Size(rows=there.rows, tokens=there.tokens)


QUESTIONS = Path(__file__).parent.parent / "prompts" / "curate"


class Asking(Config):
    """What stages that ask a model about rows have in common. Answers are greedy."""

    max_new_tokens: int = Field(256, ge=1)
    """Tokens an answer may have; one that is cut cannot be read, and the row has no label of it then."""
    chunk: int = Field(256, ge=1)
    """Rows asked about between two writes to disk."""


def question(name: str) -> External:
    """The prompt file of a question, whose content enters the stage's key."""
    path = QUESTIONS / f"{name}.jinja"
    return External(f"synth/prompts/curate/{path.name}", file_sha256(path)[:16], Size())


def asking_size(config: Asking, sizes: Mapping[str, Any], machine: Machine, models: Iterable[str]) -> Size:
    """Every row is read, and an answer of the expected length written, by each of the models among the inputs."""
    there = incoming(sizes)
    there_are = [sizes[name] for name in models if name in sizes]
    asked = [size.parameters for size in there_are]
    written = int(there.rows * answer_tokens(config.max_new_tokens))
    return Size(
        rows=there.rows,
        tokens=written * len(asked) if asked else there.tokens,
        parameters=max(asked, default=0),
        memory=max(map(forward_memory, asked), default=0),
        seconds=sum(generation_seconds(parameters, there.tokens, written, machine) for parameters in asked),
        cost=sum(size.charges(there.tokens, written) for size in there_are),
        made={"rows": there},
    )
