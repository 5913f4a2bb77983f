"""The HTTP engine against a server that misbehaves: what is tried again, what is told, what is kept, what it cost."""

import logging
import socket
import time

import pytest

from posttrain.data.rows import Prompt
from posttrain.endpoint import Abilities, Endpoint, Price
from posttrain.engines import Request, Sampling, http, open_engine
from posttrain.engines.answers import answer_prompts
from posttrain.engines.http import proxy_of, waiting
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from tests.posttrain.engines.stub import MODEL, PROMPT_TOKENS, Stub

ASKED = [Request(f"r{i}", ({"role": "user", "content": f"number {i}"},), seed=i) for i in range(6)]
CAN = Abilities(n=True, logprobs=True, token_ids=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def stub():
    stubs = []

    def make(**settings):
        stubs.append(Stub(**settings))
        return stubs[-1]

    yield make
    for one in stubs:
        one.shutdown()
        one.server_close()


def engine_at(*stubs, **settings):
    urls = tuple(one if isinstance(one, str) else one.url for one in stubs)
    fields = {"can": CAN, "concurrency": 4, "timeout": 30} | settings
    return open_engine(Endpoint(endpoint=urls, model=MODEL, **fields), Machine())


def answers(engine, requests=ASKED, sampling=None):
    found = {batch[0].request_id: batch for batch in engine.generate(requests, sampling or Sampling(1, 1.0, 1.0, 8))}
    engine.close()
    return found


def dead_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    "fault", [(429, [("Retry-After", "0")]), (500, []), (503, []), "cut", "hang", "broken", "empty"], ids=str
)
def test_a_fault_that_may_pass_is_tried_again(stub, fault):
    server = stub(faults=[fault, fault])
    engine = engine_at(server, timeout=1.5 if fault == "hang" else 30)
    found = answers(engine)
    assert {name: batch[0].text.rpartition(" ")[0] for name, batch in found.items()} == {
        f"r{i}": f"NUMBER {i}" for i in range(6)
    }
    assert len(server.asked) == 8
    assert engine.account.retries == 2


def test_retry_after_holds_for_every_request_to_that_server(stub):
    server = stub(faults=[(429, [("Retry-After", "0.6")])])
    answers(engine_at(server, concurrency=1), ASKED[:3])
    first, second, *_ = server.times
    assert second - first >= 0.6


def test_waits_double_and_end_at_a_minute(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_SECONDS", 0.5)
    for attempt, longest in [(0, 0.5), (1, 1.0), (3, 4.0), (20, 60.0)]:
        waits = [waiting(attempt) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_a_dead_endpoint_is_one_sentence(stub):
    with pytest.raises(UserError, match=r"was asked 2 times and in the end .*; see that the server of stub runs"):
        answers(engine_at(dead_url(), retries=1))


def test_another_endpoint_takes_over(stub):
    server = stub()
    assert len(answers(engine_at(dead_url(), server, retries=4))) == 6
    assert len(server.asked) == 6


def test_several_endpoints_share_the_work(stub):
    one, two = stub(delay=0.05), stub(delay=0.05)
    answers(engine_at(one, two))
    assert min(len(one.asked), len(two.asked)) >= 2


def test_no_more_requests_than_told_are_under_way(stub):
    server = stub(delay=0.05)
    answers(engine_at(server, concurrency=2))
    assert server.most_under_way == 2


def test_one_request_asks_for_all_answers_where_the_server_can(stub):
    server = stub()
    found = answers(engine_at(server, can=Abilities()), ASKED[:1], Sampling(3, 1.0, 1.0, 8))["r0"]
    asked = [body for body in server.asked if body["max_tokens"] == 8]
    assert [body["n"] for body in asked] == [3]
    assert [c.index for c in found] == [0, 1, 2]
    assert [(c.tokens, c.prompt_tokens) for c in found] == [(3, PROMPT_TOKENS), (3, 0), (3, 0)]
    assert len({c.text for c in found}) == 3


def test_a_server_without_n_is_asked_once_for_each_answer(stub):
    server = stub(n=False)
    found = answers(engine_at(server, can=Abilities()), ASKED[:2], Sampling(3, 1.0, 1.0, 8))
    asked = [body for body in server.asked if body["max_tokens"] == 8]
    assert len(asked) == 6
    assert not any("n" in body for body in asked)
    assert len({body["seed"] for body in asked}) == 6
    assert [c.index for c in found["r1"]] == [0, 1, 2]


def test_a_server_that_gives_fewer_answers_than_declared_is_told(stub):
    with pytest.raises(UserError, match=r"gave 1 of 3 answers to one request; set can: \{n: false\}"):
        answers(engine_at(stub(n=False)), ASKED[:1], Sampling(3, 1.0, 1.0, 8))


def test_log_probs_are_summed_or_refused(stub):
    sampling = Sampling(1, 1.0, 1.0, 8, logprobs=True)
    assert answers(engine_at(stub(), can=Abilities()), ASKED[:1], sampling)["r0"][0].logprob == pytest.approx(-1.5)
    with pytest.raises(UserError, match="stub gives no log-probs, which this stage needs"):
        answers(engine_at(stub(logprobs=False), can=Abilities()), ASKED[:1], sampling)


def test_prompts_go_as_token_ids_where_the_server_takes_them(stub, tiny_model):
    hostile = Request("h", ({"role": "user", "content": "a <|eot_id|> b"},))
    server = stub(token_ids=True)
    engine = engine_at(server, can=Abilities(), tokenizer=str(tiny_model))
    found = answers(engine, [hostile])["h"][0]
    assert server.asked[-1]["prompt"] == engine.renderer.prompt(hostile.messages)
    assert (found.ids, found.tokens) == ((7, 8, 9), 3)


def test_a_list_that_is_read_as_text_is_no_prompt_of_token_ids(stub, tiny_model):
    server = stub(token_ids="as text")
    found = answers(engine_at(server, can=Abilities(), tokenizer=str(tiny_model)), ASKED[:1])["r0"][0]
    assert (found.text, "messages" in server.asked[-1]) == ("NUMBER 0 " + str(server.asked[-1]["seed"]), True)


def test_what_a_server_can_do_is_asked_where_it_will_be_used(stub, tiny_model):
    server = stub(token_ids=True, chat=False)
    engine = engine_at(server, can=Abilities(), tokenizer=str(tiny_model))
    found = answers(engine, ASKED[:1], Sampling(3, 1.0, 1.0, 8, logprobs=True))["r0"]
    assert [one.logprob for one in found] == pytest.approx([-1.5] * 3)
    assert [body.get("n") for body in server.asked] == [None, 2, None, 3]
    assert [body.get("logprobs") for body in server.asked] == [None, None, 1, 1]
    assert all(body["prompt"][0] == engine.renderer.tokenizer.bos_token_id for body in server.asked)


def test_literal_control_tokens_are_refused_where_only_text_can_be_sent(stub, tiny_model):
    hostile = Request("h", ({"role": "user", "content": "a <|eot_id|> b"},))
    server = stub()
    found = answers(engine_at(server, can=Abilities(), tokenizer=str(tiny_model)), [hostile, ASKED[0]])
    assert found["h"][0].finish == "refused"
    assert found["h"][0].text == "the prompt holds <|eot_id|>, which the server would read as a control token"
    assert found["r0"][0].finish == "stop"
    assert not any("eot_id" in str(body) for body in server.asked)


def test_built_in_tools_go_as_token_ids_and_are_refused_as_messages(stub, tiny_model):
    builtin = Request("b", ({"role": "user", "content": "rain?"},), ({"type": "brave_search"},))
    server = stub(token_ids=True)
    engine = engine_at(server, can=Abilities(), tokenizer=str(tiny_model))
    assert answers(engine, [builtin])["b"][0].finish == "stop"
    assert server.asked[-1]["prompt"] == engine.renderer.prompt(builtin.messages, builtin.tools)
    refused = answers(engine_at(stub()), [builtin, ASKED[0]])
    assert (refused["b"][0].finish, refused["r0"][0].finish) == ("refused", "stop")
    assert "declares brave_search, which only a template can say" in refused["b"][0].text


def test_what_does_not_fit_the_context_is_that_rows_error(stub, tiny_model):
    long = Request("long", ({"role": "user", "content": "far too long"},))
    by_server = answers(engine_at(stub()), [long, ASKED[0]])
    assert (by_server["long"][0].finish, by_server["r0"][0].finish) == ("too_long", "stop")
    server = stub()
    by_rendering = answers(engine_at(server, tokenizer=str(tiny_model), context=20), ASKED[:1])
    assert (by_rendering["r0"][0].finish, server.asked) == ("too_long", [])
    by_usage = answers(engine_at(stub(), context=PROMPT_TOKENS + 7), ASKED[:1])["r0"][0]
    assert (by_usage.finish, by_usage.text, by_usage.prompt_tokens) == ("too_long", "", PROMPT_TOKENS)


def test_messages_and_tools_are_sent_in_openais_form(stub):
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "Rom"}}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    talk = (
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": {"sky": "blau"}},
    )
    server = stub()
    answers(engine_at(server, extra={"top_k": -1, "seed": None}), [Request("t", talk, (tool,))])
    (body,) = server.asked
    assert body["messages"][1]["tool_calls"] == [
        {"id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": '{"city": "Rom"}'}}
    ]
    assert body["messages"][2] == {"role": "tool", "content": '{"sky": "blau"}', "tool_call_id": "call_1_0"}
    assert (body["tools"], body["top_k"], "seed" in body) == ([tool], -1, False)


def test_the_key_comes_from_the_environment_and_never_out(stub, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    server = stub(key="sk-secret")
    with pytest.raises(UserError, match="the environment has no STUB_KEY"):
        engine_at(server, api_key_env="STUB_KEY")
    monkeypatch.setenv("STUB_KEY", "sk-secret")
    assert len(answers(engine_at(server, api_key_env="STUB_KEY"))) == 6
    monkeypatch.setenv("STUB_KEY", "sk-stale")
    with pytest.raises(UserError, match="see that STUB_KEY holds its key") as caught:
        answers(engine_at(server, api_key_env="STUB_KEY"))
    assert "sk-" not in str(caught.value) + caplog.text


def test_the_environments_proxy_is_asked_for_other_machines_alone(monkeypatch):
    for name, value in [("HTTP_PROXY", "http://proxy:3128"), ("HTTPS_PROXY", "proxy:3129"), ("NO_PROXY", "near.org")]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name.lower(), value)
    urls = ["http://far.org/v1", "https://far.org/v1", "http://near.org/v1", "http://127.0.0.1:8000/v1"]
    assert [proxy_of(url) for url in urls] == ["http://proxy:3128", "http://proxy:3129", None, None]


PROMPTS = [Prompt(({"role": "user", "content": f"prompt {i}"},), "general") for i in range(8)]


def job_in(folder, **more):
    folder.mkdir(exist_ok=True)
    return Job(config=None, inputs={}, folder=folder, seed=3, name="sample", **more)


def kept(job):
    return sorted(row["response"]["prompt_id"] for rows in job.journal("responses").chunks.values() for row in rows)


def test_a_budget_stops_the_stage_and_keeps_what_is_finished(stub, tmp_path):
    # Each answer costs 10 · 1 + 3 · 2 = 16 millionths of a unit, so the fourth passes a budget of 50 millionths.
    server = stub()
    settings = {"price": Price(input=1.0, output=2.0), "concurrency": 1}
    sampling = Sampling(1, 1.0, 1.0, 8)
    with pytest.raises(UserError, match=r"have cost 6.4e-05, and its budget is 5e-05; raise it in models"):
        answer_prompts(job_in(tmp_path), engine_at(server, budget=5e-5, **settings), PROMPTS, sampling, 2, "m")
    assert len(kept(job_in(tmp_path))) == len(server.asked) == 4
    job = job_in(tmp_path)
    found = answer_prompts(job, engine_at(server, budget=1.0, **settings), PROMPTS, sampling, 2, "m")
    assert len(server.asked) == len(found) == 8
    assert job.summary["usage"]["m"] == {"prompt_tokens": 80, "tokens": 24, "retries": 0, "cost": pytest.approx(128e-6)}


def test_a_stopped_stage_asks_only_for_the_prompts_it_lacks(stub, tmp_path):
    server = stub(faults=[None, None, None, (500, []), (500, [])])
    sampling = Sampling(2, (0.2, 1.0), 1.0, 8)
    with pytest.raises(UserError, match="asked once and in the end answered 500 as told"):
        answer_prompts(job_in(tmp_path), engine_at(server, retries=0, concurrency=1), PROMPTS, sampling, 3, "m")
    done = kept(job_in(tmp_path))
    assert len(done) == 2 * 3
    server.asked.clear()
    found = answer_prompts(job_in(tmp_path), engine_at(server, retries=1), PROMPTS, sampling, 3, "m")
    assert len([body for body in server.asked if "n" in body]) == 5 + 1
    assert [(r.prompt_id, r.index) for r in found] == [(i, k) for i in sorted(p.id for p in PROMPTS) for k in range(2)]
    heat = {r.prompt_id: r.made_by["temperature"] for r in found}
    assert all(0.2 < value < 1.0 for value in heat.values())
    assert len(set(heat.values())) == 8
    assert {body["temperature"] for body in server.asked} < set(heat.values())


def test_an_interruption_ends_the_requests_under_way(stub, tmp_path, monkeypatch):
    monkeypatch.setattr("posttrain.engines.answers.REPORT_SECONDS", 0.0)
    server = stub(delay=0.1)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        answer_prompts(
            job_in(tmp_path, stopping=lambda: True), engine_at(server, concurrency=1, timeout=60), PROMPTS,
            Sampling(1, 1.0, 1.0, 8), 2, "m",
        )  # fmt: skip
    assert len(kept(job_in(tmp_path))) == 1
    assert time.monotonic() - began < 30


def test_two_prompts_of_one_id_are_refused(stub, tmp_path):
    with pytest.raises(UserError, match="two prompts to answer have the id"):
        answer_prompts(job_in(tmp_path), engine_at(stub()), [PROMPTS[0], PROMPTS[0]], Sampling(), 2, "m")


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://me:secret@host/v1", "https://host/v1?key=secret", "file:///etc/passwd"]
)
def test_an_endpoint_is_a_plain_url(url):
    with pytest.raises(ValueError, match=r"http://host:port/v1|no key, user or query"):
        Endpoint(endpoint=url, model=MODEL)
