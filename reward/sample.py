"""K answers of the policy to every prompt of the round, the prompt computed once for them (Llama 3, 4.2.2)."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.data.rows import Prompt, Response
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.sample_spec import SampleConfig

UNASKED = {"too_long": "prompt_too_long", "refused": "refused"}
"""Why a prompt has no answer, by finish."""


def run(job: Job) -> None:
    """Write `responses`. A prompt that leaves no room for an answer, or that a server refuses, is dropped and named."""
    config: SampleConfig = job.config
    prompts = _steered(_prompts(Path(job.inputs["prompts"])), config.system)
    sampling = Sampling(config.k, config.temperature, config.top_p, config.max_new_tokens, config.logprobs)
    responses: list[Response] = []
    for number, name in enumerate(config.model):
        with closing(open_engine(job.inputs["model"][number], job.machine)) as engine:
            journal = f"responses-{name}" if number else "responses"
            answers = answer_prompts(job, engine, prompts, sampling, config.chunk, name, journal)
        responses += [replace(answer, index=answer.index + number * config.k, id="") for answer in answers]
    responses.sort(key=lambda response: (response.prompt_id, response.index))
    kept = [response for response in responses if response.finish not in UNASKED]
    drops = _drops(job, responses)
    if not kept:
        raise UserError(
            f"none of the {len(prompts):,} prompts got an answer ({_reasons(drops)}) of {config.max_new_tokens} new "
            "tokens at most; lower max_new_tokens or use other prompts"
        )
    job.rows["responses"] = write_table(job.folder, "responses", kept)
    job.summary |= _summary(kept) | {"drops": drops}


def _prompts(folder: Path) -> list[Prompt]:
    """Each prompt once. Raises UserError for an empty pool."""
    prompts = {prompt.id: prompt for prompt in read_table(folder, "prompts")}
    if not prompts:
        raise UserError(f"{folder} holds no prompts to answer; add prompts to the recipe")
    return list(prompts.values())


def _steered(prompts: list[Prompt], system: dict[str, str]) -> list[Prompt]:
    """The prompts with their capability's system prompt in front, under their own ids: it is no part of the row."""
    steered = []
    for prompt in prompts:
        text = system.get(prompt.capability, system.get("default"))
        if text and prompt.messages[0]["role"] != "system":
            prompt = replace(prompt, messages=({"role": "system", "content": text}, *prompt.messages))
        steered.append(prompt)
    return steered


def _drops(job: Job, responses: list[Response]) -> dict[str, int]:
    """Prompts without any answer of one model at least, by reason; each is named in the log."""
    drops = dict.fromkeys(UNASKED.values(), 0)
    for finish, reason in UNASKED.items():
        lost = {r.prompt_id: r.text for r in responses if r.finish == finish}
        drops[reason] = len(lost)
        for prompt_id, why in sorted(lost.items()):
            job.log.warning("prompt %s is dropped: %s", prompt_id, why or reason.replace("_", " "))
    return drops


def _reasons(drops: dict[str, int]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in drops.items() if count)


def _summary(kept: list[Response]) -> dict[str, Any]:
    """Finish reasons, mean length and the share of different answers, overall and of each model."""
    by_model: dict[str, list[Response]] = {}
    for response in kept:
        by_model.setdefault(response.made_by["model"], []).append(response)
    whole = _figures(kept)
    return whole if len(by_model) == 1 else whole | {"by_model": {name: _figures(r) for name, r in by_model.items()}}


def _figures(responses: list[Response]) -> dict[str, Any]:
    return {
        "finish": dict(Counter(response.finish for response in responses)),
        "mean_tokens": sum(response.tokens for response in responses) / len(responses),
        "distinct": len({(response.prompt_id, response.text) for response in responses}) / len(responses),
    }
