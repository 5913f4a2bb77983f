"""Sampling with tools that are run: from a served model's calls to a row that is trained."""

import json

import pytest

from posttrain.chat import Renderer
from posttrain.checks.tools import SCHEMAS
from posttrain.data.rows import Check, Prompt, gather
from posttrain.data.tables import read_table
from posttrain.endpoint import Abilities, Endpoint
from posttrain.engines import http
from posttrain.errors import UserError
from posttrain.train.batches import render_pair, render_row
from reward import sample, score, select
from reward.answers import grade_of
from reward.sample_spec import SampleConfig
from reward.score_spec import ScoreConfig
from reward.select_spec import SelectConfig
from tests.posttrain.engines.stub import MODEL, Handler, Stub
from tests.reward.conftest import call

TOOLS = (SCHEMAS["calculator"],)
SUM = Prompt(({"role": "user", "content": "What is 17 * 23?"},), "math", tools=TOOLS,
             check=Check("numeric", {"answer": 391}))  # fmt: skip
WANTED = Check("tool_calls", {"calls": [{"name": "calculator", "arguments": {"expression": "17 * 23"}}]})
CALLS = Prompt(({"role": "user", "content": "Call for 17 * 23."},), "tool_use", tools=TOOLS, check=WANTED)
PLAIN = Prompt(({"role": "user", "content": "No tools here, 17 * 23?"},), "general")
CONFIG = SampleConfig(k=4, temperature=1.0, max_new_tokens=64, tools={"calculator": "calculator"}, turns=3)


class Caller(Handler):
    """Calls the calculator, every fourth sample wrongly, then says the result."""

    def said(self, body, text):
        found = super().said(body, text)
        for choice in found["choices"]:
            choice["message"]["content"] = self.line(body["messages"], choice["index"])
        return found

    def line(self, messages, index):
        results = [message["content"] for message in messages if message["role"] == "tool"]
        if not results:
            return call("calculator", expression="17 +* 23" if index == 3 else "17 * 23")
        said = json.loads(results[-1])
        return f"It is {said['result']}." if "result" in said else "I cannot tell."


@pytest.fixture
def served():
    server = Stub()
    server.RequestHandlerClass = Caller
    yield Endpoint(endpoint=(server.url,), model=MODEL, can=Abilities(n=True, logprobs=True, token_ids=False))
    server.shutdown()
    server.server_close()


@pytest.fixture
def sampled(job_of, folder_of, served):
    inputs = {**folder_of(prompts=[SUM, CALLS, PLAIN]), "model": [served]}
    job = job_of(CONFIG, inputs, "sample")
    sample.run(job)
    return job


def test_calls_are_run_and_the_whole_way_is_kept(sampled):
    found = {item.prompt.id: item.responses for item in gather([SUM, CALLS, PLAIN], responses_of(sampled))}
    right, wrong = found[SUM.id]
    assert (right.text, right.count, right.finish) == ("It is 391.", 3, "stop")
    assert [step["role"] for step in right.steps] == ["assistant", "tool"]
    assert right.steps[0]["tool_calls"][0]["function"]["arguments"] == {"expression": "17 * 23"}
    assert json.loads(right.steps[1]["content"]) == {"result": 391}
    assert (wrong.text, wrong.count, wrong.index) == ("I cannot tell.", 1, 3)
    assert "no expression" in json.loads(wrong.steps[1]["content"])["error"]
    assert [(r.count, r.steps) for r in found[PLAIN.id]] == [(3, ()), (1, ())]  # it declares no tool, so nothing is run
    assert sampled.summary["calls_run"] == 8 and sampled.summary["answers"] == 12


def responses_of(job):
    return read_table(job.folder, "responses")


def test_a_check_of_calls_sees_those_that_were_run(sampled):
    grades = {(r.prompt_id, r.index): grade_of(prompt, r)
              for prompt in (SUM, CALLS) for r in responses_of(sampled) if r.prompt_id == prompt.id}  # fmt: skip
    assert grades == {(SUM.id, 0): 1.0, (SUM.id, 3): 0.0, (CALLS.id, 0): 1.0, (CALLS.id, 3): 0.0}


def test_the_whole_way_is_scored_selected_and_trained_but_for_the_results(
    sampled, job_of, tiny_reward_model, tiny_model
):
    inputs = {"prompts": sampled.inputs["prompts"], "responses": sampled.folder, "reward_model": tiny_reward_model}
    scored = job_of(ScoreConfig(reward=1.0, verifier=5.0, require={"verifier": 1.0}), inputs, "score")
    score.run(scored)
    rewards = {s.response_id: s.value for s in read_table(scored.folder, "scores") if s.scorer == "reward"}
    assert set(rewards) == {r.id for r in responses_of(sampled)}
    config = SelectConfig(pairs={"rule": "right_vs_wrong"})
    job = job_of(config, {**inputs, "scores": scored.folder}, "select")
    select.run(job)
    row = next(row for row in read_table(job.folder, "rows") if row.parents[0] == SUM.id)
    assert [message["role"] for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    pair = next(pair for pair in read_table(job.folder, "pairs") if pair.prompt_id == SUM.id)
    assert (pair.chosen["content"], pair.rejected["content"]) == ("It is 391.", "I cannot tell.")
    renderer = Renderer.from_pretrained(tiny_model)
    example = render_row(renderer, row)
    trained = renderer.tokenizer.decode([label for label in example["labels"] if label != -100])
    assert trained == '{"name": "calculator", "parameters": {"expression": "17 * 23"}}<|eot_id|>It is 391.<|eot_id|>'
    both = render_pair(renderer, pair)
    for side, words in (("chosen", "It is 391."), ("rejected", "I cannot tell.")):
        ids = [i for i, on in zip(both[f"{side}_ids"], both[f"{side}_mask"], strict=True) if on]
        said = renderer.tokenizer.decode(ids)
        assert said.endswith(f"{words}<|eot_id|>") and "calculator" in said and "result" not in said


def test_who_never_stops_calling_is_cut_and_not_selected(job_of, folder_of, served, monkeypatch):
    monkeypatch.setattr(Caller, "line", lambda self, messages, index: call("calculator", expression=str(len(messages))))
    job = job_of(CONFIG.model_copy(update={"k": 1}), {**folder_of(prompts=[SUM]), "model": [served]}, "endless")
    sample.run(job)
    (response,) = responses_of(job)
    assert (response.finish, sum(step["role"] == "tool" for step in response.steps)) == ("length", 2)
    assert job.summary["finish"] == {"length": 1}


def test_tools_of_a_recipe_are_looked_at_before_anything_runs(job_of, folder_of):
    with pytest.raises(ValueError, match="the tool search looks through `corpus`"):
        SampleConfig(tools={"search": "search"})
    with pytest.raises(ValueError, match="the tool search looks through `corpus`"):
        SampleConfig(corpus="texts")
    config = SampleConfig(tools={"get_weather": "no_such_module:run"})
    with pytest.raises(UserError, match="tool get_weather: nothing runs it under the name 'no_such_module:run'"):
        sample.run(job_of(config, {**folder_of(prompts=[SUM]), "model": []}))


def test_an_endpoint_that_dies_is_one_sentence_and_what_it_answered_is_kept(job_of, folder_of, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)
    prompts = [Prompt(({"role": "user", "content": f"number {i}"},), "general") for i in range(6)]
    server = Stub()
    endpoint = Endpoint(
        endpoint=(server.url,), model=MODEL, retries=1, concurrency=1,
        can=Abilities(n=True, logprobs=True, token_ids=False),
    )  # fmt: skip
    inputs = {**folder_of(prompts=prompts), "model": [endpoint]}
    config = SampleConfig(k=2, max_new_tokens=8)
    server.answers = 3
    server.RequestHandlerClass = Dying
    with pytest.raises(UserError, match="as told"):
        sample.run(job_of(config, inputs, "dies"))
    kept = {body["messages"][-1]["content"] for body in server.asked[:3]}
    server.answers, server.asked = 100, []
    job = job_of(config, inputs, "dies")
    sample.run(job)
    assert {body["messages"][-1]["content"] for body in server.asked} == {f"number {i}" for i in range(6)} - kept
    assert len({r.prompt_id for r in responses_of(job)}) == 6
    server.shutdown()
    server.server_close()


class Dying(Handler):
    """Answers `server.answers` requests, then fails at every other."""

    def answer(self, stub, body, fault):
        stub.answers -= 1
        super().answer(stub, body, (500, ()) if stub.answers < 0 else fault)
