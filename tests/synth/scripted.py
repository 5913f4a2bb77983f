"""A chat server on loopback that answers by a rule of the test, where the tiny teacher cannot."""

import time

from posttrain.endpoint import Endpoint, Price
from tests.posttrain.engines.stub import MODEL, PROMPT_TOKENS, Handler, Stub


class Scripted(Stub):
    """`rule(text, body)` answers a request whose last message is `text`: a text, (text, finish), or an HTTP status.

    `body["index"]` is the number of the answer among n. A token is a word.
    """

    def __init__(self, rule, **options):
        super().__init__(**options)
        self.rule = rule
        self.RequestHandlerClass = ScriptedHandler

    def endpoint(self, **fields):
        fields = {"can": {"n": True, "logprobs": False}, "price": Price(input=1.0, output=2.0), "retries": 0} | fields
        return Endpoint(endpoint=self.url, model=MODEL, **fields)


class ScriptedHandler(Handler):
    def answer(self, stub, body, fault):
        time.sleep(stub.delay)
        choices = []
        for index in range(body.get("n", 1)):
            answer = stub.rule(body["messages"][-1]["content"], body | {"index": index})
            if isinstance(answer, int):
                self.reply(answer, {"error": {"message": "as told"}})
                return
            text, finish = answer if isinstance(answer, tuple) else (answer, "stop")
            message = {"role": "assistant", "content": text}
            choices.append({"index": index, "finish_reason": finish, "message": message})
        tokens = sum(len(choice["message"]["content"].split()) for choice in choices)
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
        self.reply(200, {"model": MODEL, "choices": choices, "usage": usage})
