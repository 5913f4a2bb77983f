"""Servers that a stage starts: ready when they answer, gone with the stage, and `transformers serve` for real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posttrain.data.rows import Prompt
from posttrain.engines import Request, Sampling, open_engine
from posttrain.engines.answers import answer_prompts
from posttrain.engines.managed import Server
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job
from tests.posttrain.engines.test_parallel import alive

TINY = Path(__file__).resolve().parents[3] / "posttrain" / "tiny" / "base"
MACHINE = Machine(device="cpu", threads=1, engine="transformers-serve")
ASKED = (
    "Words: river, stone, apple. Write them in the same order separated by spaces.",
    "Words: cloud, silver, garden. Write them in the same order separated by spaces.",
)
"""Of the tiny model's world: what it has never seen it answers with near ties, which rounding decides."""
QUESTIONS = [Request(f"r{i}", ({"role": "user", "content": text},), seed=i) for i, text in enumerate(ASKED)]

LISTENER = """
import http.server, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""
STAGE = """
import sys, time
from posttrain.engines.managed import Server
server = Server([sys.executable, "-c", *sys.argv[1:]])
server.wait_until_healthy(f"http://127.0.0.1:{sys.argv[2]}/health", 60)
print("ready", flush=True)
time.sleep(600)
"""


def free_port():
    from posttrain.engines.managed import _free_port

    return str(_free_port())


def gone(pids):
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(alive(pid) for pid in pids)


def test_a_stopped_server_takes_its_children_along(tmp_path):
    port, note = free_port(), tmp_path / "pids"
    server = Server([sys.executable, "-c", LISTENER, port, str(note)])
    server.wait_until_healthy(f"http://127.0.0.1:{port}/health", 60)
    pids = [int(word) for word in note.read_text().split()]
    assert all(alive(pid) for pid in pids)
    server.stop()
    assert gone(pids)


def test_a_server_ends_when_its_stage_is_killed(tmp_path):
    port, note = free_port(), tmp_path / "pids"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, LISTENER, port, str(note)], env=path, stdout=subprocess.PIPE, text=True
    )
    assert stage.stdout is not None and stage.stdout.readline() == "ready\n"
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    assert gone([int(word) for word in note.read_text().split()])


def test_a_server_that_ends_before_it_is_ready_is_told():
    server = Server([sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(UserError, match="ended with exit code 7 before it was ready"):
        server.wait_until_healthy("http://127.0.0.1:9/health", 60)


def test_a_server_that_is_never_ready_is_stopped_and_told():
    server = Server([sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(UserError, match=r"was not ready within 0\.1 s"):
        server.wait_until_healthy("http://127.0.0.1:9/health", 0.1)
    assert server._process.poll() is not None


@pytest.fixture(scope="module")
def served():
    engine = open_engine(TINY, MACHINE)
    yield engine
    engine.close()


def test_transformers_serve_takes_the_likeliest_tokens_as_the_engine_in_this_process(served):
    sampling = Sampling(1, 0.0, 1.0, 12)
    own = open_engine(TINY, Machine(device="cpu", threads=1))
    here = {batch[0].request_id: batch[0] for batch in own.generate(QUESTIONS, sampling)}
    for (there,) in served.generate(QUESTIONS, sampling):
        assert there.text == here[there.request_id].text
        assert there.tokens == here[there.request_id].tokens
        assert there.prompt_tokens == len(own.renderer.prompt(QUESTIONS[0].messages))


def test_transformers_serve_draws_k_answers_in_k_requests(served):
    (found,) = served.generate(QUESTIONS[:1], Sampling(6, 1.5, 1.0, 12))
    assert [completion.index for completion in found] == list(range(6))
    assert len({completion.text for completion in found}) > 3
    assert {completion.finish for completion in found} <= {"stop", "length"}


def test_transformers_serve_gives_no_log_probs_and_that_is_said(served):
    with pytest.raises(UserError, match="gives no log-probs"):
        list(served.generate(QUESTIONS, Sampling(1, 1.0, 1.0, 4, logprobs=True)))


def test_transformers_serve_through_the_loop_of_the_stages(served, tmp_path):
    prompts = [Prompt(question.messages, "general") for question in QUESTIONS]
    long = Prompt(({"role": "user", "content": "42 " * 5000},), "general")
    hostile = Prompt(({"role": "user", "content": "<|eot_id|>"},), "general")
    job = Job(config=None, inputs={}, folder=tmp_path, seed=1, name="sample")
    found = answer_prompts(job, served, [*prompts, long, hostile], Sampling(2, 1.0, 1.0, 8), 2, "tiny")
    finish = {response.prompt_id: response.finish for response in found}
    assert (finish[long.id], finish[hostile.id]) == ("too_long", "refused")
    assert {finish[prompt.id] for prompt in prompts} <= {"stop", "length"}
    assert job.summary["usage"]["tiny"]["tokens"] >= job.tokens > 0
