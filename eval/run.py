"""Evaluation: one greedy answer to each held-out prompt, graded by the prompt's own verifier.

Writes `responses`, `scores` (scorer `verifier`) and `report.json`: accuracy with Wilson intervals overall and by
capability, language and level, and the paired change against the evaluation before.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from eval.run_spec import EvaluateConfig
from eval.table import REPORT, SCORER, Graded, changes, read_grades, results
from posttrain.artifacts import write_durably
from posttrain.chat import Renderer
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Prompt, Response, Score
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job


def run(job: Job) -> None:
    config: EvaluateConfig = job.config
    prompts = _gradable(job)
    sampling = Sampling(n=1, temperature=0.0, max_new_tokens=config.max_new_tokens)
    with closing(open_engine(job.inputs["model"], job.machine)) as engine:
        responses = answer_prompts(job, engine, prompts, sampling, config.chunk, model=job.name)
        graded = _grade(prompts, responses, engine.renderer)
    report = _report(job, graded)
    job.rows["responses"] = write_table(job.folder, "responses", responses)
    job.rows["scores"] = write_table(
        job.folder, "scores", (Score(g.response.id, SCORER, g.value) for g in graded if g.value is not None)
    )
    write_durably(job.folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    job.summary.update(report)


def _gradable(job: Job) -> list[Prompt]:
    """The prompts in id order. Raises UserError where there is none, or one without a check."""
    folder = Path(job.inputs["prompts"])
    prompts = sorted(read_table(folder, "prompts"), key=lambda prompt: prompt.id)
    if not prompts:
        raise UserError(f"{folder} holds no prompts to evaluate on")
    unchecked = [prompt.id for prompt in prompts if prompt.check is None]
    if unchecked:
        raise UserError(f"{folder}: {len(unchecked)} prompts have no check to grade by, first {unchecked[0]}")
    for prompt in prompts:
        grade(prompt.check, {"role": "assistant", "content": "a trial, so that a faulty check is told before the work"})
    return prompts


def _grade(prompts: list[Prompt], responses: list[Response], renderer: Renderer) -> list[Graded]:
    of_prompt = {response.prompt_id: response for response in responses}
    graded = []
    for prompt in prompts:
        assert prompt.check is not None
        response = of_prompt[prompt.id]
        graded.append(Graded(prompt, response, grade(prompt.check, renderer.message(response.text)).value))
    return graded


def _report(job: Job, graded: list[Graded]) -> dict[str, Any]:
    report = results(graded)
    if "before" in job.inputs:
        grades = {answer.prompt.id: answer.value for answer in graded if answer.value is not None}
        before = read_grades(Path(job.inputs["before"]))
        report["change"] = changes((answer.prompt for answer in graded), before, grades)
    return report
