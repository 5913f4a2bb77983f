"""What an answer says depends on the template of the model that wrote it, and is scored as that model said it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.chat import Renderer
from posttrain.data.rows import Check, Prompt
from posttrain.data.tables import read_table
from reward import score
from reward.answers import answer_key, grade_of, message_of
from reward.score_spec import ScoreConfig
from tests.reward.conftest import call, say

LIST = f"[{call('f', x=1)}, {call('f', x=2)}]"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PROMPT = Prompt(
    ({"role": "user", "content": "Both?"},), "tool_use", tools=(TOOL,),
    check=Check("tool_calls", {"calls": [{"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {"x": 2}}]}),
)  # fmt: skip


def test_a_list_of_calls_is_calls_in_our_dialect_and_text_in_the_stock_one() -> None:
    (ours,) = say(PROMPT, LIST)
    stock = replace(ours, made_by={**ours.made_by, "dialect": "hf"}, id="")
    assert [one["function"]["arguments"] for one in message_of(ours)["tool_calls"]] == [{"x": 1}, {"x": 2}]
    assert message_of(stock) == {"role": "assistant", "content": LIST}
    assert (grade_of(PROMPT, ours), grade_of(PROMPT, stock)) == (1.0, 0.0)
    assert answer_key(stock) != answer_key(ours)


@pytest.fixture
def stock_reward_model(tiny_reward_model: Path, tmp_path: Path) -> Path:
    """A reward model whose template writes as the stock one does."""
    folder = tmp_path / "stock"
    shutil.copytree(tiny_reward_model, folder)
    Renderer.from_pretrained(folder, "llama-3.1-hf").tokenizer.save_pretrained(folder)
    return folder


def test_a_stock_policys_list_of_calls_is_scored_as_the_text_it_is(job_of, folder_of, stock_reward_model) -> None:
    ours = say(PROMPT, LIST, call("f", x=1), "I cannot.")
    stock = [replace(response, made_by={**response.made_by, "dialect": "hf"}, id="") for response in ours]
    inputs = {**folder_of(prompts=[PROMPT], responses=stock), "reward_model": stock_reward_model}
    job = job_of(ScoreConfig(), inputs)
    score.run(job)
    rewards = {row.response_id for row in read_table(job.folder, "scores") if row.scorer == "reward"}
    assert rewards == {response.id for response in stock}


def test_an_answer_that_the_reward_models_template_has_no_words_for_has_no_score(
    job_of, folder_of, stock_reward_model
) -> None:
    """A list of calls of a model of ours, read by a reward model of the stock template, which knows single calls."""
    responses = say(PROMPT, LIST, call("f", x=1), LIST)
    other = Prompt(({"role": "user", "content": "Only lists?"},), "tool_use", tools=(TOOL,))
    tables = folder_of(prompts=[PROMPT, other], responses=[*responses, *say(other, LIST)])
    job = job_of(ScoreConfig(votes=1.0), {**tables, "reward_model": stock_reward_model})
    score.run(job)
    scored = [row for row in read_table(job.folder, "scores") if row.scorer in ("reward", "combined")]
    assert {row.response_id for row in scored} == {responses[1].id}
    assert job.summary["prompts"]["scored"] == 1 and job.summary["drops"]["filtered_answers"] == 2
