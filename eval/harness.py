"""Suites of lm-eval, answered by our engines: the harness makes the prompts and grades the answers, and how a prompt is
rendered, generated and kept is the same as everywhere else.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.harness_tasks import (
    Doc,
    Instance,
    as_json,
    by_doc,
    conversation,
    load_tasks,
    read_settings,
    suite_prompts,
    told,
)
from eval.likelihood import Continuation, Found, continuations, of_texts
from eval.table import Graded
from posttrain.artifacts import write_durably
from posttrain.data.rows import Message, Prompt, Response, content_id
from posttrain.endpoint import Endpoint
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job

RESULTS = "lm_eval_results.json"
"""In an evaluation's folder, after the suite's name: what the harness sums up."""
ANSWER_TOKENS = 256
"""Tokens of an answer where neither suite nor task says a number: the harness's own default."""
DRAWS = 1000
"""Of the harness's bootstrap, for metrics that are no means."""


@dataclass(frozen=True)
class Asked:
    """A suite of the harness under way: its job, its folder and prompts, and how many go at once."""

    job: Job
    folder: Path
    prompts: Sequence[Prompt]
    chunk: int

    @property
    def name(self) -> str:
        return self.prompts[0].capability


def answered(asked: Asked) -> list[Graded]:
    """The suite's prompts answered and graded; what the harness sums up stands in RESULTS.

    Raises UserError when the tasks now make other prompts than the suite holds.
    """
    from lm_eval.evaluator import evaluate

    settings = read_settings(asked.folder)
    tasks = load_tasks(settings, asked.folder, asked.job.machine)
    model = _model(asked)
    with told(f"lm-eval cannot evaluate the suite {asked.name}"):
        found = evaluate(
            model, tasks, limit=settings.n, bootstrap_iters=DRAWS, system_instruction=settings.system or None,
            apply_chat_template=True, fewshot_as_multiturn=True, confirm_run_unsafe_code=True,
        )  # fmt: skip
    kept = {name: found[name] for name in ("results", "groups", "versions", "n-shot", "n-samples") if name in found}
    write_durably(asked.job.folder / results_file(asked.name), json.dumps(kept, indent=1, default=str))
    return list(_graded(settings.metric, found["samples"], model))


def results_file(name: str) -> str:
    return f"{name}.{RESULTS}"


def _model(asked: Asked) -> Any:
    """The model as the harness wants one."""
    from lm_eval.api.model import LM

    class Ours(LM):
        """Keeps the responses of each record."""

        tokenizer_name = "posttrain"

        def __init__(self) -> None:
            super().__init__()
            self.prompts: dict[Doc, Prompt] = {}
            self.responses: dict[Doc, list[Response]] = defaultdict(list)

        def apply_chat_template(self, chat_history: list[Message], add_generation_prompt: bool = True) -> str:
            return as_json(chat_history, add_generation_prompt)

        def generate_until(self, requests: list[Instance]) -> list[str]:
            self.prompts |= _known(asked, requests)
            return generate(asked, requests, self.prompts, self.responses)

        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            self.prompts |= _known(asked, requests)
            return likelihoods(asked, requests, self.prompts, self.responses)

        def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
            self.prompts |= _known(asked, requests)
            return texts_alone(asked, requests, self.prompts, self.responses)

    return Ours()


def _known(asked: Asked, requests: Sequence[Instance]) -> dict[Doc, Prompt]:
    """The suite's own prompts of these requests."""
    own = {prompt.id: prompt for prompt in asked.prompts}
    made = suite_prompts(asked.name, requests)
    strange = [doc for doc, prompt in made.items() if prompt.id not in own]
    if strange:
        raise UserError(
            f"record {strange[0][1]} of lm-eval's task {strange[0][0]} is another one than when the suite {asked.name} "
            f"was made; its data or the harness has changed: run again with --force {asked.name}"
        )
    return {doc: own[prompt.id] for doc, prompt in made.items()}


def sampling_of(kwargs: Mapping[str, Any], n: int) -> Sampling:
    """What the harness's generation arguments say; greedy unless they ask for sampling."""
    limit = next((kwargs[name] for name in ("max_gen_toks", "max_tokens", "max_new_tokens") if kwargs.get(name)), None)
    heat = float(kwargs.get("temperature", 1.0)) if kwargs.get("do_sample") else 0.0
    return Sampling(n, heat, float(kwargs.get("top_p", 1.0)) if heat else 1.0, int(limit or ANSWER_TOKENS))


def cut(text: str, kwargs: Mapping[str, Any]) -> str:
    """The text before the first of the stop texts `until`."""
    until = kwargs.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        if stop:
            text = text.split(stop)[0]
    return text


def generate(
    asked: Asked, requests: Sequence[Instance], prompts: Mapping[Doc, Prompt], responses: dict[Doc, list[Response]]
) -> list[str]:
    """A text for each request, in their order; a request that stands several times has as many samples."""
    times: dict[int, int] = defaultdict(int)
    for request in requests:
        times[id(request)] += 1
    groups: dict[Sampling, list[tuple[Prompt, Instance]]] = defaultdict(list)
    for doc, own in by_doc(requests).items():
        for place, request in enumerate(own):
            prompt = prompts[doc] if place == 0 else replace(prompts[doc], id=content_id(prompts[doc].id, place))
            prompt = replace(prompt, messages=conversation(str(request.args[0])))
            groups[sampling_of(request.args[1], times[id(request)])].append((prompt, request))
    texts: dict[int, list[str]] = {}
    with contextlib.closing(open_engine(asked.job.inputs["model"], asked.job.machine)) as engine:
        for number, (sampling, members) in enumerate(groups.items()):
            _check_prefixes(asked, engine, members)
            found = _answers(asked, engine, [prompt for prompt, _ in members], sampling, number)
            for prompt, request in members:
                texts[id(request)] = [cut(response.text, request.args[1]) for response in found[prompt.id]]
                doc = (str(request.task_name), int(request.doc_id))
                responses[doc] += [replace(response, prompt_id=prompts[doc].id) for response in found[prompt.id]]
    return [texts[id(request)].pop(0) for request in requests]


def _answers(
    asked: Asked, engine: Engine, prompts: list[Prompt], sampling: Sampling, number: int
) -> dict[str, list[Response]]:
    found: dict[str, list[Response]] = defaultdict(list)
    journal = f"suite-{asked.name}-{number}"
    for response in answer_prompts(asked.job, engine, prompts, sampling, asked.chunk, asked.job.name, journal):
        found[response.prompt_id].append(response)
    return found


def _check_prefixes(asked: Asked, engine: Engine, members: Sequence[tuple[Prompt, Instance]]) -> None:
    """Raise UserError where the harness begins the answer and a server cannot be told so."""
    model = asked.job.inputs["model"]
    begun = next((one for prompt, one in members if prompt.messages[-1].get("prefix")), None)
    if begun is not None and isinstance(model, Endpoint) and not model.tokenizer:
        raise UserError(
            f"lm-eval's task {begun.task_name} begins each answer itself, which the endpoint of {model.model} can only "
            "go on from as token ids; name the `tokenizer:` of the model"
        )


def likelihoods(
    asked: Asked, requests: Sequence[Instance], prompts: Mapping[Doc, Prompt], responses: dict[Doc, list[Response]]
) -> list[tuple[float, bool]]:
    """For each request the log-probability of its text after its context, and whether greedy decoding gives it."""
    asks = [Continuation(conversation(str(one.args[0])), str(one.args[1])) for one in requests]
    found = continuations(asked.job, asked.name, asks)
    value_of = {id(request): value for request, value in zip(requests, found, strict=True)}
    for doc, own in by_doc(requests).items():
        values = [value_of[id(request)] for request in own]
        best = max(range(len(own)), key=lambda place: values[place].logprob)
        text = str(own[best].args[1]).strip()
        responses[doc].append(_likely(asked, prompts[doc], best, text, values[best]))
    return [(value.logprob, value.greedy) for value in found]


def texts_alone(
    asked: Asked, requests: Sequence[Instance], prompts: Mapping[Doc, Prompt], responses: dict[Doc, list[Response]]
) -> list[float]:
    """For each request the log-probability of its text without anything before it: what perplexity is made of."""
    found = of_texts(asked.job, asked.name, [str(request.args[0]) for request in requests])
    for request, value in zip(requests, found, strict=True):
        doc = (str(request.task_name), int(request.doc_id))
        responses[doc].append(_likely(asked, prompts[doc], 0, str(request.args[0]), value))
    return [value.logprob for value in found]


def _likely(asked: Asked, prompt: Prompt, index: int, text: str, value: Found) -> Response:
    made_by = {"stage": asked.job.name, "round": asked.job.round, "model": asked.job.name, "by": "likelihood"}
    return Response(prompt.id, index, text, "stop", value.tokens, value.logprob, made_by)


def _graded(metric: str, samples: Mapping[str, list[dict[str, Any]]], model: Any) -> Iterator[Graded]:
    """Each response with its record's grade by the chosen metric: the harness has one grade a record."""
    wanted, _, filter = metric.partition(",")
    for task, logged in samples.items():
        name = wanted or next(iter(logged[0]["metrics"]), "")
        known = sorted({f"{one},{sample['filter']}" for sample in logged for one in sample["metrics"]})
        chosen = [one for one in logged if one["filter"] == (filter or logged[0]["filter"]) and name in one["metrics"]]
        if not chosen:
            raise UserError(f"lm-eval's task {task} has no metric {metric!r}; it has {'; '.join(known)}")
        for sample in chosen:
            doc = (task, int(sample["doc_id"]))
            value, reason = _value(sample[name], f"{name},{sample['filter']}")
            for response in model.responses[doc]:
                parsed = _parsed(sample["filtered_resps"], response)
                yield Graded(model.prompts[doc], response, value, reason, parsed)


def _value(given: Any, name: str) -> tuple[float | None, str]:
    """A grade from 0 to 1 with its reason; other numbers stand in RESULTS alone."""
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, bool) for one in given):
        given = sum(given) / len(given)
    if isinstance(given, (bool, int, float)) and 0 <= given <= 1:
        return float(given), f"{name} {float(given):g}"
    return None, f"{name} is no grade from 0 to 1"


def _parsed(filtered: Sequence[Any], response: Response) -> str | None:
    """The answer as the harness's filter read it."""
    if response.made_by.get("by") == "likelihood":
        return response.text
    first = filtered[0] if filtered else ""
    first = first[0] if isinstance(first, (list, tuple)) and first else first
    return None if str(first) in ("[invalid]", "") else str(first)


def read_results(folder: Path, name: str) -> dict[str, Any]:
    """What the harness summed up for a suite in an evaluation's folder."""
    found: dict[str, Any] = json.loads((folder / results_file(name)).read_text(encoding="utf-8"))
    return found
