"""Writes the prompt and its answers."""

from posttrain.data.rows import Prompt, Response
from posttrain.data.tables import write_table
from posttrain.stages import Job


def run(job: Job) -> None:
    prompt = Prompt(({"role": "user", "content": job.config.text},), "general")
    texts = ("Rome", f"Milan, in round {job.round}")
    responses = [Response(prompt.id, index, text, "stop", 2, None) for index, text in enumerate(texts)]
    job.rows["prompts"] = write_table(job.folder, "prompts", [prompt])
    job.rows["responses"] = write_table(job.folder, "responses", responses)
    job.progress(1, 1, "prompts")
