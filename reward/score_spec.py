"""The stage `reward.score`: every scorer's value of every candidate, and their weighted sum. Torch-free."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from posttrain.config import Config
from posttrain.errors import UserError
from posttrain.estimate import answer_tokens, forward_memory, forward_seconds, generation_seconds
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec
from posttrain.train.settings import listed
from reward.annotate_spec import ANNOTATED
from reward.scorers import COMBINED, FILE, JUDGE, REWARD, VERIFIER, VOTES

SCORED = "scored"
"""In the plan: the answers that are scored, however many scorers there are."""


class ScoreConfig(Config):
    """The recipe's `score:` section: scorers by weight; each is standardised within a prompt before it is weighted."""

    reward: float = Field(1.0, ge=0)
    """Weight of the run's own reward model, read at the end-of-turn token; 0 leaves it out."""
    votes: float = Field(0.0, ge=0)
    """Weight of the log count of equal answers among a prompt's candidates; 0 leaves it out."""
    verifier: float = Field(0.0, ge=0)
    """Weight of the prompt's own check; 0 leaves it out (it is the yardstick then, and must not select)."""
    models: dict[str, float] = {}
    """Weights of other reward models by their key in `models:`: sequence classifiers with one label and a causal
    backbone, from a folder or the hub. They read their own chat template. Empty takes none."""
    judge: float = Field(0.0, ge=0)
    """Weight of a judge's grade, 1 to 10; an unreadable verdict is no grade. 0 asks no judge."""
    judge_model: str = "teacher"
    """The judge: a key of `models:` or a stage."""
    criteria: str = ""
    """What the judge goes by, most important first; empty takes the project's own three lines."""
    judge_tokens: int = Field(512, ge=1)
    """Tokens the judge has for its reasons and its grade."""
    file: str = ""
    """A file of scores that people gave, seen from the recipe's folder: JSON lines or CSV with `response_id` and
    `value`. Empty reads none."""
    file_weight: float = Field(1.0, ge=0)
    """Weight of that file's scores; an answer it does not name has none."""
    require: dict[str, float] = {}
    """Scorer → the least value, in its own units, that an answer needs to be selected; one without a value fails. A
    scorer of weight 0 can be named too: `verifier`, or a key of `models` with weight 0."""
    chunk: int = Field(64, ge=1)
    """Prompts scored, or put to the judge, between two writes to disk."""

    def weights(self) -> dict[str, float]:
        """Every scorer's weight by its name in the table of scores."""
        own = {REWARD: self.reward, VOTES: self.votes, VERIFIER: self.verifier, JUDGE: self.judge}
        return own | ({FILE: self.file_weight} if self.file else {}) | self.models

    def model_post_init(self, context: Any) -> None:
        if not any(self.weights().values()):
            raise ValueError("every weight is 0; give at least one of reward, votes, verifier, judge, models a weight")
        taken = {REWARD, VOTES, VERIFIER, JUDGE, FILE, COMBINED} & self.models.keys()
        if taken:
            raise ValueError(f"models: {', '.join(sorted(taken))} is a scorer's own name; rename it in models:")
        if min(self.models.values(), default=0.0) < 0:
            raise ValueError("models: a weight is negative; give 0 or more")
        computed = {name for name, weight in self.weights().items() if weight} | {VERIFIER} | self.models.keys()
        unknown = sorted(self.require.keys() - computed)
        if unknown:
            raise ValueError(f"require: {', '.join(unknown)} does not score here; name one of {sorted(computed)}")


def wire(config: ScoreConfig, scope: Scope) -> dict[str, Any]:
    inputs = {
        "prompts": scope.newest("prompts"),
        "responses": scope.newest("responses"),
        "preferences": scope.newest("preferences", optional=True),
    }
    if config.reward:
        inputs["reward_model"] = scope.newest("reward_model", optional=True)
        if inputs["reward_model"] is None:
            raise UserError(
                "score.reward has a weight but no reward model comes before it; add `reward:` or set it to 0"
            )
    if config.models:
        inputs["models"] = [scope.model(name) for name in sorted(config.models)]
    if config.judge:
        inputs["judge"] = scope.model(config.judge_model, served=True)
    if config.file:
        inputs["file"] = scope.file(config.file)
    return inputs


def estimate(config: ScoreConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """Prompts without preferences: a reward model reads each and its answers once, a judge each answer alone."""
    prompts, responses = sizes["prompts"].of("prompts"), sizes["responses"].of("responses")
    annotated = sizes["preferences"].made.get(ANNOTATED, Amount()) if "preferences" in sizes else Amount()
    left = 1 - min(1.0, annotated.rows / max(1, prompts.rows))
    rows, read = int(responses.rows * left), left * (prompts.tokens + responses.tokens)
    models = [size.parameters for size in (*listed(sizes.get("reward_model")), *listed(sizes.get("models")))]
    judges = [size.parameters for size in listed(sizes.get("judge"))]
    asked, verdicts = rows * (prompts.each + responses.each), rows * answer_tokens(config.judge_tokens)
    scorers = {name for name, weight in config.weights().items() if weight} | config.require.keys() | {COMBINED}
    return Size(
        rows=rows * len(scorers),
        tokens=int(read * len(models) + verdicts * len(judges)),
        parameters=max([*models, *judges], default=0),
        memory=max(map(forward_memory, [*models, *judges]), default=0),
        seconds=sum(forward_seconds(parameters, read, machine) for parameters in models)
        + sum(generation_seconds(parameters, asked, verdicts, machine) for parameters in judges),
        made={SCORED: Amount(rows)},
        cost=sum(size.charges(asked, verdicts) for size in listed(sizes.get("judge"))),
    )


SPEC = StageSpec(
    module="reward.score",
    version=2,
    Config=ScoreConfig,
    provides=lambda config: ("scores",),
    wire=wire,
    estimate=estimate,
)
