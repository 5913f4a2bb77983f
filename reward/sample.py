"""K answers of the policy to every prompt of the round, the prompt computed once for them (Llama 3, 4.2.2).

Where the recipe names tools, the calls of prompts that declare them are run, and the model goes on with the results.
"""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.chat.messages import undeclared
from posttrain.checks.tools import Executor, open_tools, run_calls
from posttrain.data.rows import Message, Prompt, Response, canonical_json
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.dialogs import Dialog, Reply, hold
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.sample_spec import SampleConfig

UNASKED = {"too_long": "prompt_too_long", "refused": "refused"}
"""Why a prompt has no answer, by finish."""


def run(job: Job) -> None:
    """Write `responses`, equal ones of a prompt and model once with their count. A prompt that leaves no room for an
    answer, or that a server refuses, is dropped and named."""
    config: SampleConfig = job.config
    prompts = _steered(_prompts(Path(job.inputs["prompts"])), config.system)
    tools = open_tools(config.tools, job.inputs.get("corpus"))
    responses: list[Response] = []
    for number, name in enumerate(config.model):
        with closing(open_engine(job.inputs["model"][number], job.machine)) as engine:
            answers = _answers(job, engine, prompts, tools, name, f"responses-{name}" if number else "responses")
        answers = [replace(answer, index=answer.index + number * config.k, id="") for answer in answers]
        responses += counted(answers)
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
    job.summary["told"] = [f"{job.summary['answers']:,} answers, {len(kept):,} of them different"]


def _answers(
    job: Job, engine: Engine, prompts: list[Prompt], tools: dict[str, Executor], name: str, journal: str
) -> list[Response]:
    """One model's K answers to every prompt; where there are tools, the calls of prompts that declare them are run."""
    config: SampleConfig = job.config
    sampling = Sampling(config.k, config.temperature, config.top_p, config.max_new_tokens, config.logprobs)
    if not tools:
        return answer_prompts(job, engine, prompts, sampling, config.chunk, name, journal)

    def reply_of(prompt: Prompt) -> Reply:
        return lambda messages: _results(tools, prompt, messages[-1])

    dialogs = hold(
        job, engine, prompts, reply_of, sampling,
        chunk=config.chunk, model=name, journal=journal, most=config.turns,
    )  # fmt: skip
    return [_response(dialog) for dialog in dialogs]


def _results(tools: dict[str, Executor], prompt: Prompt, message: Message) -> list[Message]:
    """What is said to a message: its calls' results; nothing where it calls nothing, or what nothing runs."""
    return [] if undeclared([message], prompt.tools) else run_calls(tools, message, prompt.tools)


def _response(dialog: Dialog) -> Response:
    """A dialog as one response: what was said on the way, and the last message."""
    return replace(
        dialog.first, text=dialog.text, finish=dialog.finish, tokens=dialog.tokens, logprob=dialog.logprob,
        steps=dialog.steps, id="",
    )  # fmt: skip


def counted(responses: list[Response]) -> list[Response]:
    """Responses of one model, of those to a prompt that are equal in everything said only the first, with their
    count."""
    first: dict[tuple[str, str, str], Response] = {}
    count: Counter[tuple[str, str, str]] = Counter()
    for response in responses:
        key = (response.prompt_id, response.finish, canonical_json([response.text, response.steps]))
        first.setdefault(key, response)
        count[key] += 1
    return [replace(response, count=count[key]) for key, response in first.items()]


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
    """How many answers there are, their finish reasons and mean length, the share of different ones, and the calls that
    were run, overall and of each model."""
    by_model: dict[str, list[Response]] = {}
    for response in kept:
        by_model.setdefault(response.made_by["model"], []).append(response)
    whole = _figures(kept)
    return whole if len(by_model) == 1 else whole | {"by_model": {name: _figures(r) for name, r in by_model.items()}}


def _figures(responses: list[Response]) -> dict[str, Any]:
    finish: Counter[str] = Counter()
    for response in responses:
        finish[response.finish] += response.count
    answers = finish.total()
    calls = sum(response.count * sum(step["role"] == "tool" for step in response.steps) for response in responses)
    return {
        "answers": answers,
        "finish": dict(finish),
        "mean_tokens": sum(response.tokens * response.count for response in responses) / answers,
        "distinct": len(responses) / answers,
    } | ({"calls_run": calls} if calls else {})
