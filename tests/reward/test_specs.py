"""The specs: torch-free, wired to what is there, with estimates that add up."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Amount, Size, load_spec
from reward.sample_spec import SampleConfig
from reward.score_spec import SCORED, ScoreConfig
from reward.select_spec import SelectConfig
from reward.train_spec import RewardConfig

NAMES = ["reward.sample", "reward.annotate", "reward.score", "reward.select"]


def scope_with(*kinds):
    def newest(kind, optional=False):
        if kind in kinds:
            return f"the {kind}"
        if optional:
            return None
        raise UserError(f"no stage makes {kind}")

    return SimpleNamespace(newest=newest, model=lambda name: f"model {name}")


def test_specs_load_without_heavy_packages():
    code = (
        f"import sys; from posttrain.stages import load_spec; [load_spec(n) for n in {NAMES}]; "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("config", "fields", "why"),
    [
        (SampleConfig, {"k": 0}, "greater than or equal to 1"),
        (SampleConfig, {"k": -1}, "greater than or equal to 1"),
        (SampleConfig, {"max_new_tokens": 0}, "greater than or equal to 1"),
        (SampleConfig, {"turns": 0}, "greater than or equal to 1"),
        (SampleConfig, {"model": []}, "name one model, or several different ones"),
        (SelectConfig, {"k": -1}, "greater than or equal to 0"),
        (SelectConfig, {"pairs": {"models": "two"}}, "'any' or 'different'"),
        (ScoreConfig, {"reward": float("nan")}, "a finite number"),
    ],
)
def test_numbers_that_ask_for_nothing_are_refused(config, fields, why):
    with pytest.raises(ValidationError, match=why):
        config(**fields)


def test_tools_that_nothing_runs_are_found_by_the_plan(tmp_path):
    wire = load_spec("reward.sample").wire
    scope = scope_with("prompts")
    scope.model = lambda name, served: f"model {name}"
    scope.data = lambda path: SimpleNamespace(source=str(tmp_path / path))
    (tmp_path / "texts").mkdir()
    ready = SampleConfig(tools={"search": "search", "run": "json:loads", "code_interpreter": "python"}, corpus="texts")
    assert wire(ready, scope)["corpus"].source == str(tmp_path / "texts")
    assert "corpus" not in wire(SampleConfig(), scope)
    with pytest.raises(UserError, match="tool run: nothing runs it under the name 'jsonn:loads'; write python, calc"):
        wire(SampleConfig(tools={"run": "jsonn:loads"}), scope)
    with pytest.raises(UserError, match="corpus: nowhere is not there"):
        wire(SampleConfig(tools={"search": "search"}, corpus="nowhere"), scope)


def test_score_asks_for_a_reward_model_only_when_it_weighs_something():
    wire = load_spec("reward.score").wire
    without = wire(ScoreConfig(reward=0, votes=1), scope_with("prompts", "responses"))
    assert without == {"prompts": "the prompts", "responses": "the responses", "preferences": None}
    with pytest.raises(UserError, match="no reward model comes before it"):
        wire(ScoreConfig(), scope_with("prompts", "responses"))
    assert wire(ScoreConfig(), scope_with("prompts", "responses", "reward_model"))["reward_model"] == "the reward_model"


def test_select_needs_scores_unless_it_draws_at_random():
    wire = load_spec("reward.select").wire
    assert wire(SelectConfig.model_validate({"sft": "random", "pairs": "none"}), scope_with("prompts", "responses"))
    with pytest.raises(UserError, match="no stage makes scores"):
        wire(SelectConfig(), scope_with("prompts", "responses"))


def test_weights_of_nothing_are_refused():
    with pytest.raises(ValidationError, match="every weight is 0"):
        ScoreConfig(reward=0)


def test_estimates_follow_from_rows_and_tokens():
    machine, prompts, model = Machine(teraflops=1.0), Size(rows=10, tokens=1000), Size(parameters=1_000_000)
    sizes = {"prompts": prompts, "model": model, "reward_model": model}
    sampled = load_spec("reward.sample").estimate(
        SampleConfig(k=4, max_new_tokens=50), {**sizes, "model": [model]}, machine
    )
    # A fifth of 50 tokens is written for each of 40 answers; a written token costs what eight read ones do.
    assert (sampled.rows, sampled.tokens, sampled.note) == (40, 400, "previous ×4")
    assert sampled.seconds == pytest.approx(2 * 1e6 * (1000 + 8 * 400) / 1e12)
    sizes["responses"] = sampled
    scored = load_spec("reward.score").estimate(ScoreConfig(), sizes, machine)
    assert (scored.of(SCORED).rows, scored.rows, scored.tokens) == (40, 40 * 2, 1400)
    selected = load_spec("reward.select").estimate(SelectConfig(), sizes, machine)
    assert selected.of("rows") == Amount(10, 10 * (100 + 10))
    assert selected.of("pairs") == Amount(10, 10 * 100 + 20 * 10)
    annotate = load_spec("reward.annotate")
    annotated = annotate.estimate(annotate.Config(by="human", share=0.5, pairs_per_prompt=2), sizes, machine)
    assert annotated.of("preferences") == Amount(10, 5 * 100 + 15 * 10)
    inputs = {"preferences": [annotated], "init": model}
    trained = load_spec("reward.train").estimate(RewardConfig(epochs=2), inputs, machine)
    assert (trained.rows, trained.tokens) == (10, 2 * 650)
    assert trained.seconds == pytest.approx(6 * 1e6 * 1300 / 1e12)


def test_prompts_with_preferences_are_neither_scored_nor_selected_from_in_the_plan():
    machine, model = Machine(), Size(parameters=1000)
    sizes = {"prompts": Size(rows=100, tokens=5000), "reward_model": model}
    sizes["responses"] = load_spec("reward.sample").estimate(SampleConfig(k=9), {**sizes, "model": [model]}, machine)
    annotate = load_spec("reward.annotate")
    # 40 prompts are looked at; 30 of them have right and wrong answers, three wrong ones for one of nine that is right.
    sizes["preferences"] = annotate.estimate(annotate.Config(share=0.4, pairs_per_prompt=0), sizes, machine)
    assert 85 <= sizes["preferences"].rows <= 90
    sizes["scores"] = load_spec("reward.score").estimate(ScoreConfig(), sizes, machine)
    assert sizes["scores"].of(SCORED).rows == 70 * 9
    assert load_spec("reward.select").estimate(SelectConfig(), sizes, machine).of("pairs").rows == 70
