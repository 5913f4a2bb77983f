"""The stage `reward.annotate`: preference pairs on a share of the prompts. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config
from posttrain.estimate import answer_tokens, forward_memory, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec
from posttrain.train.settings import pairs_amount

FORMATS = (".jsonl", ".csv")
"""What a filled-in file may end with."""
ANNOTATED = "annotated prompts"
"""In the estimate: the prompts that get pairs, and so are not scored."""
MIXED = 0.75
"""Of the prompts that a verifier looks at, those expected to have right and wrong answers; measured in the quick start:
0.79 and 0.80."""
WRONG = 0.33
"""Different wrong answers of such a prompt for each answer sampled, the right ones being one; measured there: 0.31."""


class AnnotateConfig(Config):
    """The recipe's `annotate:` section."""

    by: Literal["verifier", "judge", "human"] = "verifier"
    """Who says which answer is better. `verifier`: the prompt's own check, so prompts without one are left out.
    `judge`: a model, asked in both orders. `human`: the stage writes a file of comparisons, the run ends as waiting
    (exit code 3), and goes on when the filled-in file is there."""
    share: float = Field(0.3, gt=0, le=1)
    """Share of the prompts, chosen by the hash of their ids; they train the reward model and are not scored by it."""
    pairs_per_prompt: int = Field(4, ge=0)
    """Pairs a prompt at most, drawn by seed: right against wrong answers for `verifier`, any two different ones (of
    different models where several answered) for the others. 0 takes all."""
    model: str = "teacher"
    """The judge: a key of `models:` or a stage."""
    criteria: str = ""
    """What the judge or the person goes by, most important first; empty takes the project's own three lines."""
    max_new_tokens: int = Field(1024, ge=1)
    """Tokens the judge has for its reasons and its verdict."""
    chunk: int = Field(64, ge=1)
    """Comparisons judged between two writes to disk."""
    file: str = Field("preferences-round-{round}", min_length=1)
    """Where a person's filled-in file will be, seen from the recipe's folder and without its ending (.jsonl or .csv);
    `{round}` is the round's number."""


def filled_in(config: AnnotateConfig, number: int) -> str:
    """The name of the file that a person fills in for a round, without its ending."""
    name = config.file.removesuffix(FORMATS[0]).removesuffix(FORMATS[1])
    return name.replace("{round}", str(number))


def wire(config: AnnotateConfig, scope: Scope) -> dict[str, Any]:
    inputs = {"prompts": scope.newest("prompts"), "responses": scope.newest("responses")}
    if config.by == "judge":
        inputs["judge"] = scope.model(config.model, served=True)
    if config.by == "human":
        name = filled_in(config, scope.round)
        found = [scope.expected_file(name + ending) for ending in FORMATS]
        inputs["filled_in"] = next((file for file in found if file is not None), None)
    return inputs


def estimate(config: AnnotateConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """The pairs of a share of the prompts. A judge reads each twice, with both answers, and writes its reasons."""
    prompts, responses = sizes["prompts"].of("prompts"), sizes["responses"].of("responses")
    answers = responses.rows / max(1, prompts.rows)
    chosen = prompts.rows * config.share
    if config.by == "verifier":
        chosen, each = chosen * MIXED, max(1.0, answers * WRONG)
    else:
        each = answers * (answers - 1) / 2
    rows = int(chosen * min(each, config.pairs_per_prompt or each))
    made = {
        "preferences": pairs_amount(rows, chosen, prompts.each, responses.each),
        ANNOTATED: Amount(int(chosen), int(chosen * prompts.each)),
    }
    if config.by != "judge":
        waits = config.by == "human" and "filled_in" not in sizes
        note = f"waits for {config.file}" if waits else f"by {config.by}"
        return Size(rows=rows, tokens=made["preferences"].tokens, note=note, made=made)
    parameters = sizes["judge"].parameters
    read, written = 2 * rows * (prompts.each + 2 * responses.each), 2 * rows * answer_tokens(config.max_new_tokens)
    return Size(
        rows=rows,
        tokens=int(written),
        parameters=parameters,
        memory=forward_memory(parameters),
        seconds=generation_seconds(parameters, read, written, machine),
        cost=sizes["judge"].charges(read, written),
        note=f"by {config.model}, both orders",
        made=made,
    )


SPEC = StageSpec(
    module="reward.annotate",
    version=2,
    Config=AnnotateConfig,
    provides=lambda config: ("preferences",),
    wire=wire,
    estimate=estimate,
)
