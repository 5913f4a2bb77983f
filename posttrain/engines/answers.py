"""Prompts to responses, journaled: the loop that sampling, evaluation and the teacher share."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import pairwise
from typing import Any

from posttrain.chat.parse import USUAL
from posttrain.data.rows import Prompt, Response
from posttrain.engines.protocol import Completion, Engine, Request, Sampling
from posttrain.errors import UserError
from posttrain.stages import Job

SEED_BITS = 32
SYNC_SECONDS = 0.5
"""Prompts that are finished one by one reach the disk at least this often; a kill loses none, a power cut these."""
REPORT_SECONDS = 0.2
OF_MANY = ("steps", "count")
"""Fields of a response that its completion alone does not have: what is put together later."""


def answer_prompts(
    job: Job,
    engine: Engine,
    prompts: Iterable[Prompt],
    sampling: Sampling,
    chunk: int,
    model: str,
    journal: str = "responses",
    draws: str = "",
) -> list[Response]:
    """`sampling.n` responses to each prompt, in order of prompt id and index.

    A stage that was killed goes on with the prompts it lacks: those of an engine whose answers are independent are kept
    one by one, others by `chunk` prompts in sorted id order, so that the same prompts are put to the model together
    and the same bits come out. A request's seed depends on the job's seed, `draws` (else the journal) and its id.
    `model` is the name that `made_by` records, with the dialect of its template where that is not `posttrain`. Raises
    UserError for two prompts of one id.
    """
    ordered = sorted(prompts, key=lambda prompt: prompt.id)
    for one, two in pairwise(ordered):
        if one.id == two.id:
            raise UserError(f"two prompts to answer have the id {one.id}; leave one out")
    kept = _Kept(job, engine, journal, model, len(ordered), sampling, draws or journal)
    groups = []
    for start in range(0, len(ordered), chunk):
        lacking = [prompt for prompt in ordered[start : start + chunk] if prompt.id not in kept.responses]
        if lacking:
            groups.append((f"{start:08d}", [_request(job, draws or journal, prompt) for prompt in lacking]))
    for name, completions in _answered(engine, groups, sampling):
        kept.add(name, completions)
    kept.end()
    return [response for prompt in ordered for response in kept.responses[prompt.id]]


def _request(job: Job, draws: str, prompt: Prompt) -> Request:
    return Request(prompt.id, prompt.messages, prompt.tools, _seed(job, draws, prompt.id))


def _seed(job: Job, draws: str, prompt_id: str) -> int:
    return job.rng(draws, prompt_id).getrandbits(SEED_BITS)


def _answered(
    engine: Engine, groups: list[tuple[str, list[Request]]], sampling: Sampling
) -> Iterator[tuple[str, list[Completion]]]:
    """What was answered together, under the name it is journaled by, as it is finished."""
    if engine.independent:
        for batch in engine.generate([request for _, requests in groups for request in requests], sampling):
            yield batch[0].request_id, batch
    elif engine.lanes == 1:
        for name, requests in groups:
            yield name, _together(engine, requests, sampling)
    else:
        yield from _side_by_side(engine, groups, sampling)


def _together(engine: Engine, requests: list[Request], sampling: Sampling) -> list[Completion]:
    return [completion for batch in engine.generate(requests, sampling) for completion in batch]


def _side_by_side(
    engine: Engine, groups: list[tuple[str, list[Request]]], sampling: Sampling
) -> Iterator[tuple[str, list[Completion]]]:
    with ThreadPoolExecutor(engine.lanes) as pool:
        names: dict[Future[list[Completion]], str] = {
            pool.submit(_together, engine, requests, sampling): name for name, requests in groups
        }
        try:
            for future in as_completed(names):
                yield names[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Kept:
    """The journal's responses by prompt, and what is said of how far it is."""

    def __init__(
        self, job: Job, engine: Engine, journal: str, model: str, total: int, sampling: Sampling, draws: str
    ):  # fmt: skip
        self.job, self.engine, self.model, self.sampling, self.total = job, engine, model, sampling, total
        self.draws, self.journal = draws, job.journal(journal)
        self.responses: dict[str, list[Response]] = {}
        self.synced = self.reported = time.monotonic()
        self.new_tokens = self.said = 0
        for name in list(self.journal.chunks):
            rows = self._take(name)
            if engine.account:
                tokens = sum(row["response"]["tokens"] for row in rows)
                engine.account.charge(sum(row["prompt_tokens"] for row in rows), tokens)
        if self.responses:
            self._report()

    def add(self, name: str, completions: list[Completion]) -> None:
        """Keep what was finished, then say so; a request to stop is heard after it."""
        now = time.monotonic()
        sync = not self.engine.independent or now - self.synced > SYNC_SECONDS
        completions.sort(key=lambda completion: (completion.request_id, completion.index))
        rows = [self._row(completion) for completion in completions]
        self.journal.append(name, rows, sync)
        self._take(name)
        self.synced = now if sync else self.synced
        if not self.engine.independent or now - self.reported > REPORT_SECONDS:
            self.reported = now
            self._report()

    def end(self) -> None:
        """Say what is not yet said, and leave what it cost in the stage's summary."""
        if self.said != len(self.responses) or not self.responses:
            self._report()
        if self.engine.account:
            self.job.summary.setdefault("usage", {})[self.model] = self.engine.account.as_dict()

    def _row(self, completion: Completion) -> dict[str, Any]:
        temperature = self.sampling.temperature_of(_seed(self.job, self.draws, completion.request_id))
        made_by = {
            "stage": self.job.name, "round": self.job.round, "model": self.model,
            "temperature": temperature, "top_p": self.sampling.top_p, "seed": completion.seed,
        }  # fmt: skip
        if self.engine.renderer.dialect not in (None, USUAL):
            made_by["dialect"] = self.engine.renderer.dialect
        response = Response(
            prompt_id=completion.request_id, index=completion.index, text=completion.text, finish=completion.finish,
            tokens=completion.tokens, logprob=completion.logprob, made_by=made_by,
        )  # fmt: skip
        fields = {name: value for name, value in vars(response).items() if name not in OF_MANY}
        return {"response": fields, "prompt_tokens": completion.prompt_tokens}

    def _take(self, name: str) -> list[dict[str, Any]]:
        """Move a journaled chunk's rows, out of the journal's memory, to the responses."""
        rows = self.journal.chunks.pop(name)
        for row in rows:
            response = Response(**row["response"])
            self.responses.setdefault(response.prompt_id, []).append(response)
            self.new_tokens += response.tokens
        return rows

    def _report(self) -> None:
        self.job.tokens += self.new_tokens
        tokens, self.new_tokens = self.new_tokens, 0
        self.said = len(self.responses)
        done = self.said * self.sampling.n
        self.job.progress(done, self.total * self.sampling.n, "answers", tokens)
