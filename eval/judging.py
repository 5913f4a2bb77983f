"""Answers against their references, by a judge that sees each pair in both orders."""

from contextlib import closing
from dataclasses import replace

from eval.run_spec import EvaluateConfig
from eval.table import Graded
from posttrain.checks.judge import Comparison, compare
from posttrain.data.rows import Prompt, Response
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.stages import Job

WORTH = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""The model's answer is shown as the first of a pair."""


def judged(job: Job, answers: list[Graded]) -> list[Graded]:
    """The answers graded: 1 for a win over the reference, 0.5 for a tie, None without a readable verdict. `parts` have
    how many characters the answer is longer."""
    config: EvaluateConfig = job.config
    sampling = Sampling(temperature=0.0, max_new_tokens=config.judge_max_new_tokens)
    pairs = [Comparison(a.response.id, a.prompt, a.response.text, _reference(a.prompt)) for a in answers]
    with closing(open_engine(job.inputs["judge"], job.machine)) as engine:

        def ask(prompts: list[Prompt], journal: str) -> list[Response]:
            return answer_prompts(job, engine, prompts, sampling, config.chunk, str(config.judge), journal)

        found = compare(pairs, ask).found
    graded = []
    for answer in answers:
        preference = found.get(answer.response.id)
        longer = {"longer": float(len(answer.response.text) - len(_reference(answer.prompt)))}
        if preference is None:
            graded.append(replace(answer, reason="no readable verdict", parts=longer))
        else:
            reason = {"first": "better", "tie": "as good", "second": "worse"}[preference.side]
            value = WORTH[preference.side]
            graded.append(replace(answer, value=value, reason=reason, parsed=preference.side, parts=longer))
    return graded


def _reference(prompt: Prompt) -> str:
    assert prompt.check is not None
    return str(prompt.check.args["reference"])
