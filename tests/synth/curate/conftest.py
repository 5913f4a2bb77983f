"""Hand-made rows on disk, and curation stages run over them."""

import importlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from posttrain.data.rows import Pair, Prompt, Row
from posttrain.data.tables import read_table, write_table
from posttrain.endpoint import Abilities, Endpoint
from posttrain.machine import Machine
from posttrain.stages import Job

MACHINE = Machine(device="cpu", threads=1)


def row(answer, prompt="What is the capital of Italy?", language="en", capability="general", **more):
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Row(messages, capability, language, "file.jsonl", **more)


def ask(text, **more):
    return Prompt(({"role": "user", "content": text},), more.pop("capability", "general"), **more)


@pytest.fixture
def curate(tmp_path):
    """`curate("clean", rows, **config)`: the finished job of that stage over a table, or over several artifacts."""

    def curate(stage, *tables, eval_prompts=None, asked=None, seed=7, **config):
        spec = importlib.import_module(f"synth.curate.{stage}_spec").SPEC
        over = config.get("over", "rows")
        place = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        inputs = {"rows": [folder_with(place / f"in-{i}", over, table) for i, table in enumerate(tables)]}
        if eval_prompts is not None:
            inputs["eval_prompts"] = [folder_with(place / "eval", "prompts", eval_prompts)]
        inputs |= asked or {}
        folder = place / "out"
        folder.mkdir()
        job = Job(spec.Config(**config), inputs, folder, seed, name=stage, machine=MACHINE)
        importlib.import_module(spec.module).run(job)
        return job

    return curate


def folder_with(folder, table, rows):
    folder.mkdir(parents=True)
    write_table(folder, table, rows)
    return folder


def kept(job, over="rows"):
    return read_table(job.folder, over)


def kept_ids(job, over="rows"):
    return {item.id for item in kept(job, over)}


def reasons(job):
    """Row id → reason."""
    return {reject.place: reject.reason for reject in read_table(job.folder, "rejects")}


def rejects(job):
    """Row id → the reject."""
    return {reject.place: reject for reject in read_table(job.folder, "rejects")}


def pair(prompt, chosen, rejected, **more):
    answers = ({"role": "assistant", "content": text} for text in (chosen, rejected))
    return Pair(({"role": "user", "content": prompt},), *answers, "general", **more)


class Answers(BaseHTTPRequestHandler):
    """A chat completion whose text is the server's `reply(question)`."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        self.server.asked.append(question)
        message = {"role": "assistant", "content": self.server.reply(question)}
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        data = json.dumps({"model": "scripted", "choices": choices, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def scripted():
    """`scripted(reply)`: a chat server on loopback that answers by rule; `.model` is its endpoint, `.asked` its log."""
    servers = []

    def start(reply):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.reply, server.asked, server.daemon_threads = reply, [], True
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        can = Abilities(n=False, logprobs=False, token_ids=False)
        server.model = Endpoint(endpoint=(url,), model="scripted", can=can, retries=0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
