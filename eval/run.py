"""Evaluation: every suite's prompts answered (one greedy answer where a suite says nothing else) and graded.

Writes `responses`, `samples` (what was read of each answer, its grade and why), `scores` (scorer `verifier`) and
`report.json`: means with intervals overall and by capability, language and level, what each suite's kind adds, and the
paired change against the evaluation before.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from eval.contamination import FILE as CONTAMINATION
from eval.dialogs import hold
from eval.judging import judged
from eval.likelihood import chosen
from eval.run_spec import EvaluateConfig
from eval.scorers import SCORERS
from eval.scoring import graded_answers
from eval.suites.making import Answering, read_answering
from eval.summaries import summarise
from eval.table import REPORT, SCORER, Graded, changes, read_grades, results
from posttrain.artifacts import write_durably
from posttrain.checks.verifiers import arguments, grade
from posttrain.data.rows import Prompt, Response, Sample, Score
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job

Suite = tuple[Answering, list[Prompt]]


def run(job: Job) -> None:
    suites = _suites(job)
    answers = _said(job, suites)
    if answers and not any(answer.response.text for answer in answers):
        raise UserError(
            f"every one of the {len(answers):,} answers of {job.inputs['model']} is empty; see that its chat template "
            "is the one it was trained with, and that max_new_tokens is enough"
        )
    report = _report(job, suites, answers)
    job.rows["responses"] = write_table(job.folder, "responses", (answer.response for answer in answers))
    job.rows["samples"] = write_table(job.folder, "samples", map(_sample, answers))
    job.rows["scores"] = write_table(
        job.folder, "scores", (Score(a.response.id, SCORER, a.value) for a in answers if a.value is not None)
    )
    write_durably(job.folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    job.summary.update(report)


def _suites(job: Job) -> list[Suite]:
    """The prompts of each folder in id order. Raises UserError for none, for a prompt without a check or with one that
    cannot be used, and for one that stands in two suites."""
    suites: list[Suite] = []
    names: dict[str, str] = {}
    for folder in map(Path, job.inputs["prompts"]):
        prompts = sorted(read_table(folder, "prompts"), key=lambda prompt: prompt.id)
        if not prompts:
            raise UserError(f"{folder} holds no prompts to evaluate on")
        unchecked = [prompt.id for prompt in prompts if prompt.check is None]
        if unchecked:
            raise UserError(f"{folder}: {len(unchecked)} prompts have no check to grade by, first {unchecked[0]}")
        answering = read_answering(folder)
        if answering.by == "judge" and "judge" not in job.inputs:
            raise UserError(f"the suite {prompts[0].capability} needs a judge; name a model at evaluate.judge")
        for prompt in prompts:
            _check_once(prompt, names, answering)
        suites.append((answering, prompts))
    for _, prompts in suites:
        _try_checks(prompts)
    return suites


def _check_once(prompt: Prompt, names: dict[str, str], answering: Answering) -> None:
    """An id stands once among all suites, and a suite's name in no other one."""
    if prompt.id in names:
        raise UserError(f"prompt {prompt.id} stands in two suites, {names[prompt.id]} and {prompt.capability}")
    names[prompt.id] = prompt.capability
    kind = names.setdefault(f"suite {prompt.capability}", answering.kind)
    if kind != answering.kind:
        raise UserError(f"the suite {prompt.capability} has the name of a held-out capability; give it another one")


def _try_checks(prompts: list[Prompt]) -> None:
    """Faulty checks, and verifiers that cannot work here, are told before the work."""
    trial = {"role": "assistant", "content": "a trial"}
    tried: set[str] = set()
    for prompt in prompts:
        assert prompt.check is not None
        if prompt.check.name == "judge":
            continue
        arguments(prompt.check, SCORERS)
        if prompt.check.name not in tried:
            grade(prompt.check, trial, SCORERS)
        tried.add(prompt.check.name)


def _said(job: Job, suites: list[Suite]) -> list[Graded]:
    """Every suite's graded answers, in the order of the suites. The model is opened once for all that is generated."""
    found: list[list[Graded]] = [[] for _ in suites]
    generated = [number for number, (answering, _) in enumerate(suites) if answering.by != "likelihood"]
    if generated:
        with closing(open_engine(job.inputs["model"], job.machine)) as engine:
            for number in generated:
                found[number] = _generated(job, engine, *suites[number])
    for number, (answering, prompts) in enumerate(suites):
        if answering.by == "likelihood":
            found[number] = chosen(job, prompts)
        elif answering.by == "judge":
            found[number] = judged(job, found[number])
    return [answer for own in found for answer in own]


def _generated(job: Job, engine: Engine, answering: Answering, prompts: list[Prompt]) -> list[Graded]:
    config: EvaluateConfig = job.config
    check_lengths(engine, prompts, str(job.inputs["model"]))
    limit = answering.max_new_tokens or config.max_new_tokens
    sampling = Sampling(answering.n, answering.temperature, max_new_tokens=limit)
    journal = "responses" if answering.kind == "heldout" else f"suite-{prompts[0].capability}"
    if answering.by == "dialog":
        return graded_answers(prompts, hold(job, engine, prompts, sampling, config.chunk, journal), None)
    responses = answer_prompts(job, engine, prompts, sampling, config.chunk, model=job.name, journal=journal)
    if answering.by == "judge":
        return [Graded(prompt, response) for prompt, response in _paired(prompts, responses)]
    return graded_answers(prompts, responses, engine.renderer)


def _paired(prompts: list[Prompt], responses: list[Response]) -> list[tuple[Prompt, Response]]:
    of_id = {prompt.id: prompt for prompt in prompts}
    return [(of_id[response.prompt_id], response) for response in responses]


def check_lengths(engine: Engine, prompts: list[Prompt], model: str) -> None:
    """Raise UserError where prompts of a measured length have another one with this model's tokenizer and template."""
    measured = [prompt for prompt in prompts if "tokens" in prompt.made_by]
    if not measured or not hasattr(engine.renderer, "prompt"):
        return
    for prompt in measured[:: max(1, len(measured) // 3)]:
        tokens, wanted = len(engine.renderer.prompt(prompt.messages, prompt.tools)), prompt.made_by["tokens"]
        if abs(tokens - wanted) > 0.02 * wanted:
            raise UserError(
                f"a prompt of {prompt.capability} has {tokens:,} tokens for {model} where {wanted:,} were measured: "
                "its tokenizer or chat template is another one; name it at the suite's `tokenizer:`"
            )


def _sample(answer: Graded) -> Sample:
    return Sample(
        answer.prompt.id, answer.response.id, answer.prompt.capability, answer.value, answer.reason, answer.parsed,
        answer.parts,
    )  # fmt: skip


def _report(job: Job, suites: list[Suite], answers: list[Graded]) -> dict[str, Any]:
    report = results(answers)
    report["suites"] = summarise([answering for answering, _ in suites], [prompts for _, prompts in suites], answers)
    own = {prompts[0].capability: vars(answering) for answering, prompts in suites if answering.kind != "heldout"}
    report["settings"] = {"seed": job.seed, "held_out_max_new_tokens": job.config.max_new_tokens, "suites": own}
    if "contamination" in job.inputs:
        report["contamination"] = _clean_part(Path(job.inputs["contamination"]), answers)
    if "before" in job.inputs:
        before = read_grades(Path(job.inputs["before"]))
        prompts = [prompt for _, own in suites for prompt in own]
        report["change"] = changes(prompts, before, grades_of(answers))
    return report


def grades_of(answers: list[Graded]) -> dict[str, float]:
    """The mean grade of each prompt's answers, for those that could be graded."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        if answer.value is not None:
            values.setdefault(answer.prompt.id, []).append(answer.value)
    return {prompt_id: sum(own) / len(own) for prompt_id, own in values.items()}


def _clean_part(folder: Path, answers: list[Graded]) -> dict[str, Any]:
    """By suite, the prompts that overlap training rows, and the accuracy on the others."""
    found = json.loads((folder / CONTAMINATION).read_text(encoding="utf-8"))["prompts"]
    clean = results(answer for answer in answers if answer.prompt.id not in found)["capability"]
    marked = results(answer for answer in answers if answer.prompt.id in found)["capability"]
    return {
        name: {"contaminated": marked[name]["n"] if name in marked else 0, "clean": clean.get(name)}
        for name in sorted({*clean, *marked})
    }
