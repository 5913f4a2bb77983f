"""A chat server on loopback that answers by rule, and misbehaves as told."""

import json
import socket
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "stub"
PROMPT_TOKENS = 10


class Stub(ThreadingHTTPServer):
    """Answers with the last message, upper case, and the seed; three tokens each. `faults` are used up first.

    `token_ids` may be "as text": a list is then read as the text that shows it. Without `chat` there is no template.
    """

    daemon_threads = True

    def __init__(self, n=True, logprobs=True, token_ids=False, chat=True, faults=(), delay=0.0, key=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.n, self.logprobs, self.token_ids, self.delay, self.key = n, logprobs, token_ids, delay, key
        self.chat = chat
        self.faults = deque(faults)
        self.asked = []
        self.times = []
        self.under_way = self.most_under_way = 0
        self.guard = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Connections that are cut on purpose are no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its headers

    def do_GET(self):
        self.reply(200, {"data": [{"id": MODEL, "max_model_len": 0}]})

    def do_POST(self):
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.guard:
            stub.asked.append(body)
            stub.times.append(time.monotonic())
            stub.under_way += 1
            stub.most_under_way = max(stub.most_under_way, stub.under_way)
            fault = stub.faults.popleft() if stub.faults else None
        try:
            self.answer(stub, body, fault)
        finally:
            with stub.guard:
                stub.under_way -= 1

    def answer(self, stub, body, fault):
        time.sleep(stub.delay)
        if stub.key and self.headers["Authorization"] != f"Bearer {stub.key}":
            self.reply(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
        elif fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "hang":
            time.sleep(3.0)
        elif fault == "broken":
            self.reply(200, text='{"choices": [')
        elif fault == "empty":
            self.reply(200, {"choices": []} if body.get("n", 1) == 1 else {})
        elif isinstance(fault, tuple):
            self.reply(fault[0], {"message": "as told"}, headers=fault[1])
        elif self.path.endswith("/completions") and not self.path.endswith("/chat/completions"):
            if stub.token_ids:
                self.reply(200, self.said(body, "token ids"))
            else:
                self.reply(400, {"detail": "prompt must be a string."})
        elif not stub.chat:
            self.reply(400, {"message": "the model has no chat template"})
        elif "too long" in body["messages"][-1]["content"]:
            self.reply(400, {"error": {"message": "This model's maximum context length is 64 tokens."}})
        else:
            self.reply(200, self.said(body, body["messages"][-1]["content"].upper()))

    def said(self, body, text):
        count = body.get("n", 1) if self.server.n else 1
        choices = []
        for index in range(count):
            choice = {"index": index, "finish_reason": "stop"}
            said = f"{text} {body.get('seed', 0) + index}"
            choice |= {"text": said} if "prompt" in body else {"message": {"role": "assistant", "content": said}}
            if "prompt" in body:
                choice["token_ids"] = [7, 8, 9]
            if body.get("logprobs") and self.server.logprobs:
                choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5}] * 3}
            choices.append(choice)
        return {
            "model": MODEL,
            "choices": choices,
            "usage": {"prompt_tokens": self.counted(body), "completion_tokens": 3 * count},
        }

    def counted(self, body):
        if "prompt" not in body:
            return PROMPT_TOKENS
        return len(str(body["prompt"])) if self.server.token_ids == "as text" else len(body["prompt"])

    def reply(self, status, value=None, text=None, headers=()):
        data = (json.dumps(value) if text is None else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, content in headers:
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass
