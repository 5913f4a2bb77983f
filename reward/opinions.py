"""Scores that others give: a judge model's grades, and a file that people filled in."""

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from posttrain.checks import judge
from posttrain.data.rows import Candidates, Prompt, Response, content_id
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.answers import answer_key, text_of_all
from reward.score_spec import ScoreConfig
from reward.scorers import Values


def by_judge(job: Job, pool: list[Candidates]) -> list[Values]:
    """The judge's grade, 1 to 10, of every answer; answers that say the same are asked about once.

    An unreadable verdict is no score. Raises UserError for a judge that never keeps to the form.
    """
    config: ScoreConfig = job.config
    keys = [[_key(item.prompt, response) for response in item.responses] for item in pool]
    asked = {
        key: (item.prompt, text_of_all(response))
        for item, own in zip(pool, keys, strict=True)
        for key, response in zip(own, item.responses, strict=True)
    }
    sampling = Sampling(temperature=0.0, max_new_tokens=config.judge_tokens)
    with closing(open_engine(job.inputs["judge"], job.machine)) as engine:

        def ask(prompts: list[Prompt], journal: str) -> list[Response]:
            return answer_prompts(job, engine, prompts, sampling, config.chunk, config.judge_model, journal)

        judged = judge.rate(asked, ask, config.criteria or judge.CRITERIA)
    job.summary["judge"] = {"model": config.judge_model, **judged.counts}
    return [[judged.found.get(key) for key in own] for own in keys]


def _key(prompt: Prompt, response: Response) -> str:
    return f"{prompt.id}:{content_id(response.steps) if response.steps else ''}{answer_key(response)}"


def by_file(path: Path, pool: list[Candidates]) -> list[Values]:
    """The scores of a file, JSON lines or CSV, with `response_id` and `value`; answers it does not name have none.

    Raises UserError for a line that lacks one, a value that is no number, an answer named twice, and a file that names
    none of the answers.
    """
    values: dict[str, float] = {}
    for number, line in _lines(path):
        response_id = str(line.get("response_id") or "")
        try:
            value = float(line["value"])
        except (KeyError, TypeError, ValueError):
            value = float("nan")
        if not response_id or value != value or response_id in values:
            raise UserError(
                f"{path.name}:{number}: a line needs `response_id`, each once, and `value`, a number; got "
                f"{json.dumps(line, ensure_ascii=False)[:120]}"
            )
        values[response_id] = value
    found: list[Values] = [[values.get(response.id) for response in item.responses] for item in pool]
    if not any(value is not None for own in found for value in own):
        raise UserError(f"{path.name} names none of the answers to score; its response_id are those of `responses`")
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and lines of a JSON lines or CSV file."""
    with open(path, encoding="utf-8", newline="") as handle:
        if path.suffix == ".csv":
            yield from enumerate(csv.DictReader(handle), start=2)
            return
        for number, text in enumerate(handle, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError:
                line = {"line": text.strip()}
            yield number, line if isinstance(line, dict) else {"line": line}
