"""Evaluation: every suite's prompts answered (one greedy answer where a suite says nothing else) and graded.

Writes `responses`, `samples` (what was read of each answer, its grade and why), `scores` (scorer `verifier`) and
`report.json`: means with intervals overall and by capability, language and level, what each suite's kind adds, and the
paired change against the evaluation before. Of several suites each is answered in an artifact of its own, which has the
tables; the evaluation then joins them.
"""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.contamination import FILE as CONTAMINATION
from eval.dialogs import hold
from eval.harness import Asked, answered, read_results
from eval.judging import judged
from eval.likelihood import chosen
from eval.run_spec import EvaluateConfig
from eval.scorers import SCORERS
from eval.scoring import graded_answers
from eval.suites.making import ELSEWHERE, Answering, read_answering
from eval.summaries import summarise
from eval.table import REPORT, SCORER, Graded, changes, read_grades, results, sum_up
from posttrain.artifacts import write_durably
from posttrain.checks.verifiers import arguments, grade
from posttrain.data.rows import Prompt, Response, Sample, Score
from posttrain.data.tables import iter_table, read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job


@dataclass(frozen=True)
class Suite:
    """A folder of evaluation prompts, and how they are answered; held-out prompts are of several capabilities."""

    folder: Path
    answering: Answering
    prompts: list[Prompt]

    @property
    def name(self) -> str:
        return self.prompts[0].capability


def run(job: Job) -> None:
    suites = _suites(job)
    if "parts" in job.inputs:
        places = list(map(Path, job.inputs["parts"]))
        answers = [one for suite, place in zip(suites, places, strict=True) for one in _read(suite, place)]
    else:
        places = [job.folder] * len(suites)
        answers = _said(job, suites)
    _write(job, answers)
    if "suite" in job.inputs:
        job.summary["overall"] = sum_up(answers)
    else:
        _conclude(job, suites, places, answers)


def _conclude(job: Job, suites: list[Suite], places: list[Path], answers: list[Graded]) -> None:
    if answers and not any(answer.response.text for answer in answers):
        raise UserError(
            f"every one of the {len(answers):,} answers of {job.inputs['model']} is empty; see that its chat template "
            "is the one it was trained with, and that max_new_tokens is enough"
        )
    report = _report(job, suites, places, answers)
    write_durably(job.folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    job.summary.update(report)


def _write(job: Job, answers: list[Graded]) -> None:
    job.rows["responses"] = write_table(job.folder, "responses", (answer.response for answer in answers))
    job.rows["samples"] = write_table(job.folder, "samples", map(_sample, answers))
    job.rows["scores"] = write_table(
        job.folder, "scores", (Score(a.response.id, SCORER, a.value) for a in answers if a.value is not None)
    )


def _read(suite: Suite, place: Path) -> list[Graded]:
    """The answers of a part as they were graded there."""
    prompts = {prompt.id: prompt for prompt in suite.prompts}
    responses = {response.id: response for response in iter_table(place, "responses")}
    return [
        Graded(prompts[one.prompt_id], responses[one.response_id], one.value, one.reason, one.parsed, one.parts)
        for one in iter_table(place, "samples")
    ]


def _suites(job: Job) -> list[Suite]:
    """The prompts of each folder in id order. Raises UserError for none, for a prompt without a check or with one that
    cannot be used, and for one that stands in two suites."""
    folders = [job.inputs["suite"]] if "suite" in job.inputs else job.inputs["prompts"]
    suites: list[Suite] = []
    names: dict[str, str] = {}
    for folder in map(Path, folders):
        prompts = sorted(read_table(folder, "prompts"), key=lambda prompt: prompt.id)
        if not prompts:
            raise UserError(f"{folder} holds no prompts to evaluate on")
        unchecked = [prompt.id for prompt in prompts if prompt.check is None]
        if unchecked:
            raise UserError(f"{folder}: {len(unchecked)} prompts have no check to grade by, first {unchecked[0]}")
        suite = Suite(folder, read_answering(folder), prompts)
        if suite.answering.by == "judge" and not {"judge", "parts"} & job.inputs.keys():
            raise UserError(f"the suite {suite.name} needs a judge; name a model at evaluate.judge")
        for prompt in prompts:
            _check_once(prompt, names, suite.answering)
        suites.append(suite)
    for suite in suites:
        _try_checks(suite.prompts)
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
        if prompt.check.name in ELSEWHERE:
            continue
        arguments(prompt.check, SCORERS)
        if prompt.check.name not in tried:
            grade(prompt.check, trial, SCORERS)
        tried.add(prompt.check.name)


def _said(job: Job, suites: list[Suite]) -> list[Graded]:
    """Every suite's graded answers, in the order of the suites. The model is opened once for all that is generated."""
    found: list[list[Graded]] = [[] for _ in suites]
    generated = [number for number, suite in enumerate(suites) if suite.answering.by not in ("likelihood", "harness")]
    if generated:
        with closing(open_engine(job.inputs["model"], job.machine)) as engine:
            for number in generated:
                found[number] = _generated(job, engine, suites[number])
    for number, suite in enumerate(suites):
        if suite.answering.by == "likelihood":
            found[number] = chosen(job, suite.prompts)
        elif suite.answering.by == "harness":
            found[number] = _by_harness(job, suite)
        elif suite.answering.by == "judge":
            found[number] = judged(job, found[number])
    return [answer for own in found for answer in own]


def _by_harness(job: Job, suite: Suite) -> list[Graded]:
    return answered(Asked(job, suite.folder, suite.prompts, job.config.chunk))


def _generated(job: Job, engine: Engine, suite: Suite) -> list[Graded]:
    config: EvaluateConfig = job.config
    answering, prompts = suite.answering, suite.prompts
    check_lengths(engine, prompts, str(job.inputs["model"]))
    limit = answering.max_new_tokens or config.max_new_tokens
    sampling = Sampling(answering.n, answering.temperature, max_new_tokens=limit)
    journal = "responses" if answering.kind == "heldout" else f"suite-{suite.name}"
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


def _report(job: Job, suites: list[Suite], places: list[Path], answers: list[Graded]) -> dict[str, Any]:
    """`places` are the folders in which the suites were answered."""
    report = results(answers)
    report["suites"] = summarise([suite.answering for suite in suites], [suite.prompts for suite in suites], answers)
    for suite, place in zip(suites, places, strict=True):
        if suite.answering.by == "harness":
            report["suites"][suite.name]["harness"] = read_results(place, suite.name)
    own = {suite.name: vars(suite.answering) for suite in suites if suite.answering.kind != "heldout"}
    report["settings"] = {"seed": job.seed, "held_out_max_new_tokens": job.config.max_new_tokens, "suites": own}
    if "contamination" in job.inputs:
        report["contamination"] = _clean_part(Path(job.inputs["contamination"]), answers)
    if "before" in job.inputs:
        before = read_grades(Path(job.inputs["before"]))
        prompts = [prompt for suite in suites for prompt in suite.prompts]
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
