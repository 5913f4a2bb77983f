"""The engine behind any OpenAI-compatible server: vLLM, SGLang, TGI, llama.cpp, `transformers serve`, a hosted model.

One event loop in a thread of its own; as many workers as requests may be under way take from one iterator, so that
nothing grows with the number of rows but what is finished and not yet taken.
"""

import asyncio
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.chat import Dialect, Renderer, parse_message, split_tools
from posttrain.data.rows import Message
from posttrain.endpoint import Endpoint
from posttrain.engines import wire
from posttrain.engines.account import Account
from posttrain.engines.http import Refused, Servers, api_key
from posttrain.engines.protocol import Completion, Engine, Reader, Request, Sampling, sample_seed, unanswered
from posttrain.errors import UserError

CHAT, COMPLETIONS = "/chat/completions", "/completions"
LOGPROBS: dict[str, object] = {CHAT: True, COMPLETIONS: 1}
"""What asks for log-probs: at `/completions` how many likely tokens to add, and llama.cpp takes 0 for no log-probs."""
TOO_LONG = re.compile(r"context|too long|max_new_tokens|max_model_len|maximum.*tokens", re.IGNORECASE)
"""How servers refuse a prompt that leaves no room (400, 413 or 422)."""
TOO_LONG_STATUS = frozenset({400, 413, 422})
PROBE: tuple[Message, ...] = ({"role": "user", "content": "Hi"},)
UNTAKEN = 1024
"""Finished requests that wait to be taken before the workers pause."""
PAUSE_SECONDS = 0.005
HAND_OVER_SECONDS = 0.02
"""Finished requests are handed over together this often: threads that wake each other for every answer take longer over
that than over the answer."""


class ChatReader:
    """Reads generated text where the server has the tokenizer; calls that the server has read are written so."""

    dialect: Dialect | None = "posttrain"

    def message(self, text: str) -> Message:
        return parse_message(text)


@dataclass(frozen=True)
class Part:
    """What one HTTP request asks for: the completions of `request` at `indexes`."""

    request: Request
    indexes: tuple[int, ...]
    path: str
    body: dict[str, Any]


@dataclass
class Call:
    """One call of `generate` under way: where finished requests go, and the first error, after which none is begun."""

    requests: Sequence[Request]
    sampling: Sampling
    out: "queue.SimpleQueue[list[list[Completion]] | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    finished: list[list[Completion]] = field(default_factory=list)
    """Those that are not handed over yet."""
    made: int = 0
    """Finished requests, counted by the loop's thread; `taken` by the caller's."""
    taken: int = 0
    gathered: dict[str, list[Completion]] = field(default_factory=dict)
    error: UserError | None = None

    def finish(self, completions: list[Completion]) -> None:
        """Give a request's completions to the caller, soon."""
        if not self.finished:
            asyncio.get_running_loop().call_later(HAND_OVER_SECONDS, self.hand_over)
        self.finished.append(completions)
        self.made += 1

    def hand_over(self) -> None:
        if self.finished:
            self.out.put(self.finished)
            self.finished = []


class OpenAIEngine(Engine):
    """Requests to the servers of an endpoint. `on_close` is called last, for a server that was started for this."""

    independent = True

    def __init__(self, endpoint: Endpoint, on_close: Callable[[], None] = lambda: None):
        api_key(endpoint)
        self._endpoint, self._on_close = endpoint, on_close
        self._tokenizer = Renderer.from_pretrained(endpoint.tokenizer) if endpoint.tokenizer else None
        self.renderer: Reader = self._tokenizer or ChatReader()
        self.account: Account = Account(endpoint.price, endpoint.budget)
        self._can, self._context = endpoint.can.model_copy(), endpoint.context

    def close(self) -> None:
        self._on_close()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        call = Call(requests, sampling)
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._answer_all(call))
        thread = threading.Thread(target=_drive, args=(loop, task, call.out), daemon=True)
        thread.start()
        try:
            while (item := call.out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                for completions in item:
                    call.taken += 1
                    yield completions
        finally:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _answer_all(self, call: Call) -> None:
        servers = Servers(self._endpoint)
        try:
            await self._learn(servers, call.sampling)
            parts = self._parts(call)
            workers = min(self._endpoint.concurrency, len(call.requests) * call.sampling.n)
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(servers, parts, call))
        finally:
            call.hand_over()
            self.account.retries += servers.retries
            await servers.close()
        if call.error is not None:
            raise call.error

    async def _work(self, servers: Servers, parts: Iterator[Part], call: Call) -> None:
        """Take parts until there are none. An error lets what is under way end, but nothing new begin."""
        for part in parts:
            try:
                answered = await self._ask(servers, part, call.sampling)
            except UserError as error:
                call.error = call.error or error
                servers.ending = True
                return
            self._gather(call, part.request, answered)
            while call.made - call.taken > UNTAKEN:
                await asyncio.sleep(PAUSE_SECONDS)

    def _gather(self, call: Call, request: Request, answered: list[Completion]) -> None:
        self.account.charge(sum(c.prompt_tokens for c in answered), sum(c.tokens for c in answered))
        group = call.gathered.setdefault(request.id, [])
        group += answered
        if len(group) == call.sampling.n:
            group.sort(key=lambda completion: completion.index)
            call.finish(call.gathered.pop(request.id))

    def _parts(self, call: Call) -> Iterator[Part]:
        """What to send, in order; requests that cannot be sent are answered here. Ends at the first error."""
        for request in call.requests:
            try:
                self.account.check(self._endpoint.model)
                path, prompt = self._prompt(request, call.sampling)
            except _Unsendable as reason:
                call.finish(reason.completions)
                continue
            except UserError as error:
                call.error = call.error or error
            if call.error is not None:
                return
            size = call.sampling.n if self._can.n else 1
            for start in range(0, call.sampling.n, size):
                yield self._part(request, tuple(range(start, start + size)), path, prompt, call.sampling)

    def _prompt(self, request: Request, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        """Where and as what a conversation is sent."""
        ids = self._tokenizer.prompt(request.messages, request.tools) if self._tokenizer else []
        if self._context and len(ids) + sampling.max_new_tokens > self._context:
            raise _Unsendable(unanswered(request, sampling, "too_long"))
        if self._can.token_ids and self._tokenizer:
            ends = {"stop_token_ids": list(self._tokenizer.stop_ids), "skip_special_tokens": False}
            return COMPLETIONS, {"prompt": ids, "return_token_ids": True, **ends}
        builtin, _ = split_tools(request.tools)
        if builtin:
            why = f"the prompt declares {builtin[0]}, which only a template can say; give the endpoint a tokenizer"
            raise _Unsendable(unanswered(request, sampling, "refused", why))
        found = wire.control_text(request.messages, request.tools)
        if found is not None:
            why = f"the prompt holds {found}, which the server would read as a control token"
            raise _Unsendable(unanswered(request, sampling, "refused", why))
        return CHAT, wire.messages_body(request.messages, request.tools)

    def _part(
        self, request: Request, indexes: tuple[int, ...], path: str, prompt: dict[str, Any], sampling: Sampling
    ) -> Part:
        body = wire.settings(
            self._endpoint, sampling, request, sample_seed(request.seed, indexes[0]), len(indexes)
        )  # fmt: skip
        if sampling.logprobs:
            body["logprobs"] = LOGPROBS[path]
        return Part(request, indexes, path, wire.finished(prompt | body, self._endpoint))

    async def _ask(self, servers: Servers, part: Part, sampling: Sampling) -> list[Completion]:
        def read(answer: dict[str, Any]) -> list[Completion]:
            return wire.completions(answer, part.request, part.indexes, sampling.logprobs, self.renderer.dialect)

        try:
            found = await servers.post(part.path, part.body, read)
        except Refused as refused:
            if refused.status in TOO_LONG_STATUS and TOO_LONG.search(refused.message):
                return self._too_long(part, sampling, 0)
            raise self._refusal(refused) from None
        if self._context and found[0].prompt_tokens + sampling.max_new_tokens > self._context:
            # Some servers cut the prompt, or the room for the answer, and say nothing.
            return self._too_long(part, sampling, found[0].prompt_tokens)
        return found

    def _too_long(self, part: Part, sampling: Sampling, charged: int) -> list[Completion]:
        every = unanswered(part.request, sampling, "too_long")
        mine = [every[index] for index in part.indexes]
        return [replace(mine[0], prompt_tokens=charged), *mine[1:]]

    def _refusal(self, refused: Refused) -> UserError:
        where = f"{self._endpoint.endpoint[0]} refuses requests for {self._endpoint.model}: {refused}"
        if refused.status in (401, 403):
            variable = self._endpoint.api_key_env
            return UserError(f"{where}; {f'see that {variable} holds its key' if variable else 'set api_key_env'}")
        if refused.status == 404:
            return UserError(f"{where}; see that the endpoint ends in /v1 and that model is what the server calls it")
        return UserError(f"{where}; add to extra, or take out there with null, what the server asks for")

    async def _learn(self, servers: Servers, sampling: Sampling) -> None:
        """Probe once what the recipe does not say of the server, as far as this sampling needs it, at the path that the
        requests will take: a server may give `n` or log-probs at one alone, or have no chat template."""
        if self._can.token_ids is None:
            self._can = self._can.model_copy(update={"token_ids": await self._reads_token_ids(servers)})
        path, probe = CHAT, wire.messages_body(PROBE, ()) | {"max_tokens": 1}
        if self._can.token_ids and self._tokenizer:
            path, probe = COMPLETIONS, {"prompt": self._tokenizer.prompt(PROBE), "max_tokens": 1}
        unknown: dict[str, bool] = {}
        if self._can.n is None and sampling.n > 1:
            unknown["n"] = await self._does(
                servers, path, probe | {"n": 2, "temperature": 1.0}, lambda answer: len(answer["choices"]) == 2
            )
        if self._can.logprobs is None and sampling.logprobs:
            unknown["logprobs"] = await self._does(
                servers, path, probe | {"logprobs": LOGPROBS[path]},
                lambda answer: bool(answer["choices"][0].get("logprobs")),
            )  # fmt: skip
        self._can = self._can.model_copy(update=unknown)
        if sampling.logprobs and not self._can.logprobs:
            raise UserError(
                f"{self._endpoint.model} gives no log-probs, which this stage needs; name a model of another engine"
            )
        if not self._context:
            self._context = await self._longest(servers)

    async def _reads_token_ids(self, servers: Servers) -> bool:
        """Whether token ids are answered and, where it counts them, counted as so many: read as text they are more."""
        if self._tokenizer is None:
            return False
        ids = self._tokenizer.prompt(PROBE)

        def shows(answer: dict[str, Any]) -> bool:
            counted = (answer.get("usage") or {}).get("prompt_tokens")
            return bool(answer["choices"]) and counted in (None, len(ids))

        return await self._does(servers, COMPLETIONS, {"prompt": ids, "max_tokens": 1}, shows)

    async def _does(
        self, servers: Servers, path: str, body: dict[str, Any], shows: Callable[[dict[str, Any]], bool]
    ) -> bool:
        body = wire.finished({"model": self._endpoint.model} | body, self._endpoint)
        try:
            return await servers.post(path, body, shows)
        except Refused as refused:
            if refused.status in (401, 403) or (refused.status == 404 and path == CHAT):
                raise self._refusal(refused) from None
            return False
        except (KeyError, IndexError, TypeError, AttributeError):
            return False

    async def _longest(self, servers: Servers) -> int:
        """What vLLM and SGLang say of the model's context; 0 where nothing is said."""
        listed = (await servers.get("/models")).get("data")
        for model in listed if isinstance(listed, list) else []:
            if isinstance(model, dict) and model.get("id") == self._endpoint.model:
                return int(model.get("max_model_len") or 0)
        return 0


class _Unsendable(Exception):
    """A request that is answered without the server."""

    def __init__(self, completions: list[Completion]):
        self.completions = completions
        super().__init__()


def _drive(
    loop: asyncio.AbstractEventLoop,
    task: "asyncio.Task[None]",
    out: "queue.SimpleQueue[list[list[Completion]] | BaseException | None]",
) -> None:
    """Run the loop until its task ends; the end, or what went wrong, comes last in the queue."""
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        out.put(None)
    except BaseExceptionGroup as group:
        out.put(group.exceptions[0])
    except BaseException as error:
        out.put(error)
    else:
        out.put(None)
    finally:
        loop.close()
