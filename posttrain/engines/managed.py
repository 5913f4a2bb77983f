"""A server that a stage starts on a checkpoint, uses over HTTP and stops; it ends with the stage, however that ends."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from posttrain.chat import Renderer
from posttrain.endpoint import Abilities, Endpoint
from posttrain.engines import supervisor
from posttrain.engines.loading import check_folder, choose_device
from posttrain.engines.openai import OpenAIEngine
from posttrain.errors import UserError
from posttrain.machine import Machine

HOST = "127.0.0.1"
START_SECONDS = 1800.0
"""A large model is read, compiled and warmed up in less."""
ASK_SECONDS = 0.5
STOP_SECONDS = supervisor.GRACE_SECONDS + 5.0
CONCURRENCY = {"vllm-serve": 256, "transformers-serve": 4}
"""Requests under way: vLLM batches them itself, `transformers serve` answers one by one."""
PIP_LINES = {"vllm": "pip install 'posttrain[vllm]'", "transformers": "pip install 'transformers[serving]'"}


class Server:
    """A server process under its supervisor. Its output goes where this process's errors go: the stage's log."""

    def __init__(self, command: list[str]):
        self.command = command
        line = [sys.executable, "-P", supervisor.__file__, *command]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=2, start_new_session=True)

    def wait_until_healthy(self, url: str, seconds: float = START_SECONDS) -> None:
        """Return once `url` answers 200. Raises UserError, and stops the server, when it ends or takes too long."""
        name, deadline = " ".join(self.command[:2]), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise UserError(
                    f"{name} ended with exit code {self._process.returncode} before it was ready; its own words stand "
                    "in the stage's log"
                )
            if _healthy(url):
                return
            time.sleep(ASK_SECONDS)
        self.stop()
        raise UserError(f"{name} was not ready within {seconds:g} s; its own words stand in the stage's log")

    def stop(self) -> None:
        """End the server and all it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _healthy(url: str) -> bool:
    """Whether a server of this machine, so without a proxy, answers 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ASK_SECONDS * 10) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def open_model(model: str | Path, machine: Machine) -> OpenAIEngine:
    """Start `machine.engine` on the model and wait until it answers."""
    check_folder(model)
    port = _free_port()
    describe = _vllm if machine.engine == "vllm-serve" else _transformers
    command, fields = describe(str(model), machine, port)
    endpoint = Endpoint(
        endpoint=(f"http://{HOST}:{port}/v1",), model=str(model), tokenizer=str(model),
        concurrency=CONCURRENCY[machine.engine], **fields,
    )  # fmt: skip
    server = Server(command)
    engine = OpenAIEngine(endpoint, server.stop)
    server.wait_until_healthy(f"http://{HOST}:{port}/health")
    return engine


def _vllm(model: str, machine: Machine, port: int) -> tuple[list[str], dict[str, Any]]:
    command = [
        _program("vllm"), "serve", model, "--host", HOST, "--port", str(port),
        "--tensor-parallel-size", str(machine.tensor_parallel), "--data-parallel-size", str(machine.workers),
        "--gpu-memory-utilization", str(machine.gpu_memory), "--enable-prefix-caching", "--generation-config", "vllm",
    ]  # fmt: skip
    return command, {"can": Abilities(n=True, logprobs=True, token_ids=True)}


def _transformers(model: str, machine: Machine, port: int) -> tuple[list[str], dict[str, Any]]:
    if machine.workers > 1:
        raise UserError("machine.workers with transformers-serve is not possible; set machine.engine to transformers")
    from transformers import AutoConfig

    device = str(choose_device(machine))
    command = [
        _program("transformers"), "serve", model, "--host", HOST, "--port", str(port), "--device", device,
    ]  # fmt: skip
    renderer = Renderer.from_pretrained(model)
    # Without this it takes the likeliest token whatever the temperature, of 50 at most.
    drawing = {"do_sample": True, "top_k": 0, "eos_token_id": renderer.stop_ids, "pad_token_id": renderer.pad_id}
    fields = {
        "can": Abilities(n=False, logprobs=False, token_ids=False),
        "extra": {"generation_config": json.dumps(drawing)},
        "context": AutoConfig.from_pretrained(model).max_position_embeddings,  # longer ones it takes without a word
    }
    return command, fields


def _program(name: str) -> str:
    """The program beside this Python, else on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise UserError(f"machine.engine starts {name}, which is not installed; {PIP_LINES[name]}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
