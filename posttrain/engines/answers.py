"""Prompts to responses in journaled chunks: the loop that sampling, evaluation and the teacher share."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from posttrain.data.rows import Prompt, Response
from posttrain.engines.protocol import Completion, Engine, Request, Sampling
from posttrain.stages import Job

SEED_BITS = 32


def answer_prompts(
    job: Job,
    engine: Engine,
    prompts: Iterable[Prompt],
    sampling: Sampling,
    chunk: int,
    model: str,
    journal: str = "responses",
) -> list[Response]:
    """`sampling.n` responses to each prompt, in order of prompt id and index.

    Every `chunk` prompts (in sorted id order) are one entry of the job's journal of that name: a stage that was killed
    goes on with the chunks it lacks. A request's seed depends on the job's seed, the journal and the prompt's id only.
    `model` is the name that `made_by` records.
    """
    ordered = sorted(prompts, key=lambda prompt: prompt.id)
    done = job.journal(journal)
    chunks = {f"{start:08d}": ordered[start : start + chunk] for start in range(0, len(ordered), chunk)}
    finished = 0
    for name, members in chunks.items():
        if name not in done:
            answers = _answer(job, engine, members, sampling, model, journal)
            done.append(name, [asdict(response) for response in answers])
        finished += len(members)
        tokens = sum(record["tokens"] for record in done.chunks[name])
        job.tokens += tokens
        job.progress(finished * sampling.n, len(ordered) * sampling.n, "answers", tokens)
    return [Response(**record) for record in done.rows(list(chunks))]


def _answer(
    job: Job, engine: Engine, prompts: list[Prompt], sampling: Sampling, model: str, journal: str
) -> list[Response]:
    requests = [
        Request(prompt.id, prompt.messages, prompt.tools, job.rng(journal, prompt.id).getrandbits(SEED_BITS))
        for prompt in prompts
    ]
    made_by = {
        "stage": job.name, "round": job.round, "model": model,
        "temperature": sampling.temperature, "top_p": sampling.top_p,
    }  # fmt: skip
    completions = [completion for batch in engine.generate(requests, sampling) for completion in batch]
    completions.sort(key=lambda completion: (completion.request_id, completion.index))
    return [_response(completion, made_by) for completion in completions]


def _response(completion: Completion, made_by: dict[str, Any]) -> Response:
    return Response(
        prompt_id=completion.request_id,
        index=completion.index,
        text=completion.text,
        finish=completion.finish,
        tokens=len(completion.ids),
        logprob=completion.logprob,
        made_by={**made_by, "seed": completion.seed},
    )
