"""Asking a server over HTTP: `answer_prompts` with the engine of an endpoint, against what latency alone takes.

    python benchmarks/served.py --write            # on a busy machine: nice -n -10 python ...

A stub in a process of its own answers every request after `--latency` seconds, so that no client can be faster than
prompts / concurrency × latency. Ours does all that a stage does: bodies, answers, accounts, and a journal on disk. The
peer is OpenAI's own client (`pip install openai`) with a task for each request and a semaphore, which keeps the texts
in memory. Contenders run in turn, each in a process of its own, whose CPU time and peak memory are its own. Then ours
answers `--many` prompts without latency, for memory.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import markdown, parser, ratio, report, turns

WORDS = 200
"""Words of a prompt and of an answer."""
OURS, PEER = "posttrain", "openai"


@dataclass(frozen=True)
class Spent:
    """Of one contender's run: `wall` and CPU seconds without imports, and bytes of memory before it and at its peak."""

    wall: float
    cpu: float
    before: int
    peak: int


class Stub(asyncio.Protocol):
    """Answers each POST after `latency` seconds with the same completion; knows as much HTTP as that takes."""

    def __init__(self, latency: float):
        self.latency, self.heard = latency, b""
        usage = {"prompt_tokens": WORDS, "completion_tokens": WORDS, "total_tokens": 2 * WORDS}
        message = {"role": "assistant", "content": "word " * WORDS}
        said = {
            "id": "1", "object": "chat.completion", "created": 0, "model": "stub", "usage": usage,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }  # fmt: skip
        body = json.dumps(said).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer = head.encode() + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        head, end, body = self.heard.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        if end and len(body) >= length:
            self.heard = body[length:]
            latency = self.latency if head.startswith(b"POST") else 0.0
            asyncio.get_running_loop().call_later(latency, self.transport.write, self.answer)


async def serve(latency: float) -> None:
    """Print the port, then answer until this process is ended."""
    server = await asyncio.get_running_loop().create_server(partial(Stub, latency), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def ours(url: str, count: int, concurrency: int) -> None:
    from posttrain.data.rows import Prompt
    from posttrain.endpoint import Abilities, Endpoint
    from posttrain.engines import Sampling, open_engine
    from posttrain.engines.answers import answer_prompts
    from posttrain.machine import Machine
    from posttrain.stages import Job

    prompts = [Prompt(({"role": "user", "content": text(number)},), "general") for number in range(count)]
    endpoint = Endpoint(
        endpoint=(url,), model="stub", concurrency=concurrency, can=Abilities(n=True, logprobs=True, token_ids=False)
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Job(config=None, inputs={}, folder=Path(folder), seed=0, name="sample")
        engine = open_engine(endpoint, Machine())
        answers = answer_prompts(job, engine, prompts, Sampling(1, 1.0, 1.0, 2 * WORDS), 64, "stub")
        engine.close()
    assert len(answers) == count and all(answer.tokens == WORDS for answer in answers)


def peer(url: str, count: int, concurrency: int) -> None:
    from openai import AsyncOpenAI

    async def ask(client: AsyncOpenAI, free: asyncio.Semaphore, number: int) -> str:
        async with free:
            answer = await client.chat.completions.create(
                model="stub", messages=[{"role": "user", "content": text(number)}], max_tokens=2 * WORDS, seed=0
            )
        return answer.choices[0].message.content or ""

    async def run() -> list[str]:
        free = asyncio.Semaphore(concurrency)
        async with AsyncOpenAI(base_url=url, api_key="none") as client:
            return await asyncio.gather(*(ask(client, free, number) for number in range(count)))

    logging.getLogger("httpx2").setLevel(logging.WARNING)
    assert len(asyncio.run(run())) == count


def text(number: int) -> str:
    return f"{number} " + "question " * WORDS


def contend(name: str, url: str, count: int, concurrency: int) -> Spent:
    """One run in this process, after a small one that imports all there is."""
    run = ours if name == OURS else peer
    run(url, 1, 1)
    before, cpu, began = rss(), time.process_time(), time.perf_counter()
    run(url, count, concurrency)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Spent(wall, cpu, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, latency: float, count: int, concurrency: int) -> Spent:
    """`contend` in a new process against a stub in another."""
    command = [sys.executable, __file__, "--serve", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1"
        try:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.apply(contend, (name, url, count, concurrency))
        finally:
            stub.kill()


def rows_of(options: argparse.Namespace, bound: float, runs: dict[str, list[Spent]]) -> list[list[str]]:
    found = []
    for name, spent in runs.items():
        walls = [one.wall / bound for one in spent]
        cpu = 1000 * statistics.median(one.cpu for one in spent) / options.requests
        peak = max(one.peak for one in spent) / 2**20
        wall = f"{statistics.median(walls):.3f} ({min(walls):.3f}–{max(walls):.3f})"
        found.append([name, wall, f"{cpu:.2f}", f"{peak:.0f}"])
    return found


def main() -> None:
    arguments = parser(__doc__ or "", requests=1920, concurrency=64, repeat=3, many=100_000)
    arguments.add_argument("--latency", type=float, default=0.5, help="seconds that the stub takes")
    arguments.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return
    runs: dict[str, list[Spent]] = {OURS: [], PEER: []}
    for number, order in turns((OURS, PEER), options.repeat):
        for name in order:
            spent = measure(name, options.latency, options.requests, options.concurrency)
            runs[name].append(spent)
            print(f"{number + 1}: {name} {spent.wall:.2f} s, {spent.cpu:.2f} s of CPU time", flush=True)
    many = measure(OURS, 0.0, options.many, options.concurrency)
    bound = options.requests / options.concurrency * options.latency
    head = ["Client", "wall ÷ latency bound, median (range)", "CPU ms a request", "peak MiB of the process"]
    ours, theirs = ([one.cpu for one in runs[name]] for name in (OURS, PEER))
    report(
        "A served model",
        [
            *markdown(head, rows_of(options, bound, runs)), "",
            f"{ratio(ours, theirs)} by CPU time. {options.many:,} prompts of {WORDS} words with answers as long, no "
            f"latency: peak {many.peak / 2**20:,.0f} MiB, of which {many.before / 2**20:,.0f} MiB stood before the "
            f"first request (Python and its imports); {1000 * many.cpu / options.many:.2f} ms of CPU time a request.",
        ],
        options,
        f"{options.requests:,} requests, {options.concurrency} under way, a stub that answers after "
        f"{options.latency:g} s, so {bound:.1f} s by latency alone; {options.repeat} repetitions in turn, each in a "
        "new process",
        "aiohttp", "openai",
    )  # fmt: skip


if __name__ == "__main__":
    main()
