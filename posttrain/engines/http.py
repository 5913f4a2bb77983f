"""Posting JSON to several servers: the least busy is asked, what may pass is tried again, what will not is told.

Waiting times double with every try and are drawn from their upper half, so that clients which failed together do not
return together (full jitter and its variants: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

A request costs a fifth of a millisecond of CPU time in aiohttp, whatever the number under way; in httpx it is four
times that, and grows with the number (`benchmarks/served.py`).
"""

import asyncio
import email.utils
import json
import os
import random
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from posttrain.endpoint import Endpoint
from posttrain.errors import UserError

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
LONGEST_ORDERED_SECONDS = 600.0
"""A `Retry-After` beyond this is cut to it."""
PASSING = frozenset({408, 409, 425, 429})
"""Besides all 5xx, what a server says that may answer the same request later."""
MESSAGE_CHARACTERS = 300
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Read = TypeVar("Read")


class Refused(Exception):
    """A server understood the request and will not answer it: `status` and its message."""

    def __init__(self, status: int, message: str):
        self.status, self.message = status, message
        super().__init__(f"{status} ({message})" if message else str(status))


class Fault(Exception):
    """A try that failed in a way that may pass. `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        self.wait = wait
        super().__init__(reason)


@dataclass
class Server:
    """One base URL and the proxy before it: requests under way, faults since its last answer, and the time (monotonic,
    seconds) before which it is left in peace."""

    url: str
    proxy: str | None = None
    busy: int = 0
    faults: int = 0
    rests_until: float = 0.0


class Servers:
    """The servers of an endpoint, made and used in one running event loop. `ending` set, nothing is tried again."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self._key = api_key(endpoint)
        self._servers = [Server(url, proxy_of(url)) for url in endpoint.endpoint]
        # The environment's proxies, but not the keys of .netrc, which aiohttp would read with them.
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=endpoint.concurrency),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout),
            trust_env=False,
        )
        self.retries = 0
        self.ending = False

    async def close(self) -> None:
        await self._client.close()

    async def post(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], Read]) -> Read:
        """What `read` makes of the JSON object that a server answers with; it raises Fault for one to ask for again.

        Raises Refused for a request that no try will mend, and UserError when the tries are used up.
        """
        last: Server | None = None
        for attempt in range(self._endpoint.retries + 1):
            last = server = self._choose(last)
            if (pause := server.rests_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            try:
                answer = read(await self._try(server, path, body))
            except Fault as fault:
                if self.ending or attempt == self._endpoint.retries:
                    raise UserError(self._given_up(server, fault, attempt + 1)) from None
                self.retries += 1
                await self._wait(server, fault, attempt)
            else:
                server.faults = 0
                return answer
        raise AssertionError("the last try returns or raises")

    def _choose(self, failed: Server | None) -> Server:
        """The least busy server that does not rest, if possible not the one that failed last; a faulty one that has
        rested gets one request to show itself."""
        now = time.monotonic()
        return min(
            self._servers, key=lambda one: (one.rests_until > now, one is failed, one.faults > 0 < one.busy, one.busy)
        )

    async def _wait(self, server: Server, fault: Fault, attempt: int) -> None:
        """What a server orders holds for all requests to it, and so does a fault where others can do its work. The
        only server is left to the other requests: the fault may be this one's own."""
        server.faults += 1
        if fault.wait is not None:
            rest = min(fault.wait, LONGEST_ORDERED_SECONDS)
        elif len(self._servers) > 1:
            rest = waiting(server.faults - 1)
        else:
            await asyncio.sleep(waiting(attempt))
            return
        server.rests_until = max(server.rests_until, time.monotonic() + rest)

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path of the first server, or an empty one where there is none."""
        try:
            _, answer, _ = await self._exchange("GET", self._servers[0], path)
        except (TimeoutError, aiohttp.ClientError):
            return {}
        return _object(answer) or {}

    async def _try(self, server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
        server.busy += 1
        try:
            status, answer, retry_after = await self._exchange("POST", server, path, json.dumps(body).encode())
        except TimeoutError:
            raise Fault(f"gave no answer within {self._endpoint.timeout:g} s") from None
        except aiohttp.ClientError as error:
            raise Fault(self._clean(str(error) or type(error).__name__)) from None
        finally:
            server.busy -= 1
        if status in PASSING or status >= 500:
            raise Fault(f"answered {status} {self._clean(_message(answer))}".strip(), _retry_after(retry_after))
        if status != 200:
            raise Refused(status, self._clean(_message(answer)))
        found = _object(answer)
        if found is None:
            raise Fault("answered with broken JSON")
        return found

    async def _exchange(
        self, method: str, server: Server, path: str, body: bytes | None = None
    ) -> tuple[int, bytes, str | None]:
        """Status, body and `Retry-After`. Redirects are not followed, so the key goes nowhere else."""
        url, headers = f"{server.url}{path}", {"Content-Type": "application/json"} if body else None
        async with self._client.request(
            method, url, data=body, headers=headers, proxy=server.proxy, allow_redirects=False
        ) as response:
            return response.status, await response.read(), response.headers.get("Retry-After")

    def _given_up(self, server: Server, fault: Fault, tries: int) -> str:
        times = "once" if tries == 1 else f"{tries} times"
        return (
            f"{server.url} was asked {times} and in the end {fault}; see that the server of {self._endpoint.model} "
            "runs, then give the same command again: finished answers are kept"
        )

    def _clean(self, text: str) -> str:
        """A server's or library's words without the key, on one line."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key else text)[:MESSAGE_CHARACTERS]


def waiting(attempt: int) -> float:
    """Seconds before try `attempt + 2`: between half and all of 0.5 · 2^attempt, at most 60."""
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt) * random.uniform(0.5, 1.0)


def api_key(endpoint: Endpoint) -> str | None:
    """The key in the environment variable that the recipe names. Raises UserError where there is none."""
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise UserError(
            f"the environment has no {endpoint.api_key_env}, which holds the key of {endpoint.model}; export it"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the key in {endpoint.api_key_env} holds characters that no header can carry; export it anew")
    return key


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL; none is asked for this machine's own servers."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body holds; None where it holds something else."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _message(body: bytes) -> str:
    """What a server says of an error: OpenAI's `error.message`, vLLM's `message`, FastAPI's `detail`, or its text."""
    try:
        said = json.loads(body)
    except ValueError:
        return body[:MESSAGE_CHARACTERS].decode(errors="replace")
    while isinstance(said, dict):
        said = next((said[name] for name in ("error", "message", "detail") if said.get(name)), "")
    return str(said)
