"""The stage `reward.select`: which candidates become SFT rows, and which of them ranked pairs. Torch-free."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.config import Config
from posttrain.machine import Machine
from posttrain.stages import Amount, Scope, Size, StageSpec
from posttrain.train.settings import pairs_amount
from reward.score_spec import SCORED

SCORED_ROWS = ("best", "top_n", "threshold")
SCORED_PAIRS = ("best_vs_worst", "best_vs_random", "ranked_list")


class RowRule(Config):
    """Which answers of a prompt are trained on; `sft: best` is short for `sft: {rule: best}`."""

    rule: Literal["best", "top_n", "threshold", "all_correct", "verified", "random"] = "best"
    """`best`: the highest score (rejection sampling, Llama 3, 4.2.2). `top_n`: the `n` highest. `threshold`: those of
    at least `least`. `all_correct`: those that the prompt's check passes (reasoning, 4.3.3). Ablations: `verified`, one
    of those by seed, and `random`, any one by seed."""
    score: str = "combined"
    """The scorer that ranks: `combined`, or one that `score` wrote, such as `reward` or `verifier`."""
    n: int = Field(0, ge=0)
    """Answers a prompt at most for `top_n` (which needs it), `threshold` and `all_correct`, each different answer once;
    0 takes all."""
    least: float | None = None
    """The score an answer must have for `threshold`, in that scorer's own units."""
    top_share: float = Field(1.0, gt=0, le=1)
    """Share of the prompts of each capability that is kept, best first; 1 keeps all."""
    top_by: Literal["reward", "margin"] = "reward"
    """What `top_share` orders by: the reward model's value of the first chosen answer, or best minus worst combined
    score."""

    @model_validator(mode="after")
    def _complete(self) -> "RowRule":
        if self.rule == "top_n" and not self.n:
            raise ValueError("rule top_n needs n, the number of answers a prompt")
        if (self.rule == "threshold") != (self.least is not None):
            raise ValueError("rule threshold needs least, the score an answer must have, and only that rule reads it")
        if self.n and self.rule not in ("top_n", "threshold", "all_correct"):
            raise ValueError(f"rule {self.rule} takes one answer a prompt; leave n out")
        return self


class PairRule(Config):
    """Which answers of a prompt are ranked for DPO; `pairs: best_vs_worst` is short for a rule of that name."""

    rule: Literal["best_vs_worst", "best_vs_random", "ranked_list", "right_vs_wrong", "edited"] = "best_vs_worst"
    """`best_vs_worst`: the highest score against the lowest. `best_vs_random`: against one of the others by seed.
    `ranked_list`: `n` answers spread evenly over the ranks, as all their pairs. `right_vs_wrong`: an answer that the
    prompt's check passes against one that it does not. `edited`: the pairs of the round's annotation whose better
    answer a person wrote."""
    score: str = "combined"
    """The scorer that ranks: `combined`, or one that `score` wrote."""
    min_margin: float = Field(0.0, ge=0)
    """Least difference of the two scores (for `combined`: weighted standard deviations within a prompt); 0 asks for
    none, but equal scores make no pair."""
    models: Literal["any", "different"] = "any"
    """`different`: the two answers of a pair come from two models (Llama 3, 4.2.1), where `sample.model` names several;
    prompts where that cannot be give none."""
    n: int = Field(0, ge=0)
    """Answers in a `ranked_list` (0: 3) or pairs a prompt of `right_vs_wrong` (0: 1); the other rules make one pair."""

    @model_validator(mode="after")
    def _complete(self) -> "PairRule":
        if self.n and self.rule not in ("ranked_list", "right_vs_wrong"):
            raise ValueError(f"rule {self.rule} does not read n; leave it out")
        if self.rule == "ranked_list" and self.n == 1:
            raise ValueError("a ranked_list of one answer has no pair; n is 2 or more")
        if self.models == "different" and self.rule == "edited":
            raise ValueError("rule edited takes the pairs as people made them; leave models out")
        if self.min_margin and self.rule not in SCORED_PAIRS:
            raise ValueError(f"rule {self.rule} does not look at scores; leave min_margin out")
        return self


def _short(value: Any) -> Any:
    """`none` is no rule, a name is the rule of that name."""
    if value == "none":
        return None
    return {"rule": value} if isinstance(value, str) else value


class CapabilityRules(Config):
    """Rules of one capability; a key that is not given is as for the others."""

    sft: RowRule | None = None
    """Rows for SFT; none (or null) makes none of this capability."""
    pairs: PairRule | None = None
    """Ranked pairs for DPO; none (or null) makes none of this capability."""

    _shorts = field_validator("sft", "pairs", mode="before")(_short)


class SelectConfig(Config):
    """The recipe's `select:` section. Answers that were cut or say nothing are never selected."""

    k: int = Field(0, ge=0)
    """Answers of each prompt, and of each model, that are looked at: the first so many; 0 takes all there are."""
    language: Literal["any", "match"] = "any"
    """`match` looks only at answers in their prompt's language, before any score counts; calls of tools, and answers
    too short to tell, pass."""
    longest: float = Field(0.0, ge=0)
    """Length guard: an answer of more than this many times the median tokens of its prompt's answers is not chosen,
    whatever its score, though it may be rejected in a pair; 0 is no guard."""
    sft: RowRule | None = RowRule()
    """Rows for SFT; none (or null) makes none."""
    pairs: PairRule | None = PairRule()
    """Ranked pairs for DPO; none (or null) makes none."""
    capabilities: dict[str, CapabilityRules] = {}
    """Capability → what differs there: `tool_use: {sft: none}` leaves rejection sampling out for tool use."""

    _shorts = field_validator("sft", "pairs", mode="before")(_short)

    @model_validator(mode="after")
    def _something(self) -> "SelectConfig":
        if not self.row_rules() and not self.pair_rules():
            raise ValueError("sft and pairs are both none; select something or leave the stage out")
        return self

    def row_rule(self, capability: str) -> RowRule | None:
        """The rule for rows of a capability."""
        own = self.capabilities.get(capability)
        return own.sft if own and "sft" in own.model_fields_set else self.sft

    def pair_rule(self, capability: str) -> PairRule | None:
        """The rule for pairs of a capability."""
        own = self.capabilities.get(capability)
        return own.pairs if own and "pairs" in own.model_fields_set else self.pairs

    def row_rules(self) -> list[RowRule]:
        """Every rule for rows that some capability has."""
        return [rule for name in ("", *self.capabilities) if (rule := self.row_rule(name))]

    def pair_rules(self) -> list[PairRule]:
        """Every rule for pairs that some capability has."""
        return [rule for name in ("", *self.capabilities) if (rule := self.pair_rule(name))]


def needs_scores(config: SelectConfig) -> bool:
    """Whether any rule ranks by score."""
    return any(rule.rule in SCORED_PAIRS for rule in config.pair_rules()) or any(
        rule.rule in SCORED_ROWS or rule.top_share < 1 for rule in config.row_rules()
    )


def wire(config: SelectConfig, scope: Scope) -> dict[str, Any]:
    edited = any(rule.rule == "edited" for rule in config.pair_rules())
    return {
        "prompts": scope.newest("prompts"),
        "responses": scope.newest("responses"),
        "scores": scope.newest("scores", optional=not needs_scores(config)),
        "preferences": scope.newest("preferences") if edited else None,
    }


def provides(config: SelectConfig) -> tuple[str, ...]:
    return ("rows",) * bool(config.row_rules()) + ("pairs",) * bool(config.pair_rules())


def estimate(config: SelectConfig, sizes: Mapping[str, Any], machine: Machine) -> Size:
    """The rows and pairs that the rules take of each prompt with scores, where there are scores; no model runs."""
    prompts, responses = sizes["prompts"].of("prompts"), sizes["responses"].of("responses")
    answers = max(1, responses.rows // max(1, prompts.rows))
    there = sizes["scores"].of(SCORED).rows // answers if "scores" in sizes else prompts.rows
    row = prompts.each + responses.each
    rows = int(there * config.sft.top_share * min(_rows_of_prompt(config.sft, answers), answers)) if config.sft else 0
    pairs = there * _pairs_of_prompt(config.pairs) if config.pairs else 0
    made = {"rows": Amount(rows, int(rows * row)), "pairs": pairs_amount(pairs, there, prompts.each, responses.each)}
    main = made["rows" if rows else "pairs"]
    return Size(rows=main.rows, tokens=main.tokens, made=made)


def _rows_of_prompt(rule: RowRule, answers: int) -> int:
    """At most, of the rules that may take several."""
    return (rule.n or answers) if rule.rule in ("top_n", "threshold", "all_correct") else 1


def _pairs_of_prompt(rule: PairRule) -> int:
    ranked = rule.n or 3
    return ranked * (ranked - 1) // 2 if rule.rule == "ranked_list" else rule.n or 1


SPEC = StageSpec(
    module="reward.select",
    version=2,
    Config=SelectConfig,
    provides=provides,
    wire=wire,
    estimate=estimate,
)
