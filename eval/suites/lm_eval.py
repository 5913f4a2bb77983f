"""Tasks of lm-eval as a suite: its prompts as rows, and its task files and settings beside them."""

import shutil
from pathlib import Path

from eval.harness_tasks import HARNESS, TASKS, Settings, instances_of, load_tasks, suite_prompts
from eval.suites.lm_eval_spec import LmEvalConfig
from eval.suites.making import Answering, write_prompts
from posttrain.artifacts import write_durably
from posttrain.errors import UserError
from posttrain.stages import Job


def run(job: Job) -> None:
    config: LmEvalConfig = job.config
    if "include" in job.inputs:
        source = Path(job.inputs["include"])
        if not source.is_dir():
            raise UserError(f"{job.name}.include: {source} is no folder; name one that holds task files")
        shutil.copytree(source, job.folder / TASKS, dirs_exist_ok=True)
    settings = Settings(**config.model_dump(include=set(Settings.model_fields)))
    write_durably(job.folder / HARNESS, settings.model_dump_json(indent=1))
    tasks = load_tasks(settings, job.folder, job.machine)
    prompts = suite_prompts(job.name, instances_of(tasks, settings))
    write_prompts(job, prompts.values(), Answering("lm_eval", "harness"))
    job.summary["tasks"] = sorted(tasks["tasks"])
