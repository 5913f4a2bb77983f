"""K answers of the policy to every prompt of the round, the prompt computed once for them (Llama 3, 4.2.2)."""

from collections import Counter
from pathlib import Path

from posttrain.data.rows import Prompt
from posttrain.data.tables import read_table, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from reward.sample_spec import SampleConfig


def run(job: Job) -> None:
    """Write `responses`. A prompt that leaves no room for an answer is dropped and counted."""
    config: SampleConfig = job.config
    prompts = _prompts(Path(job.inputs["prompts"]))
    sampling = Sampling(config.k, config.temperature, config.top_p, config.max_new_tokens)
    engine = open_engine(job.inputs["model"], job.machine)
    try:
        responses = answer_prompts(job, engine, prompts, sampling, config.chunk, config.model)
    finally:
        engine.close()
    kept = [response for response in responses if response.finish != "too_long"]
    if not kept:
        raise UserError(
            f"none of the {len(prompts):,} prompts leaves room for {config.max_new_tokens} new tokens in "
            f"{job.inputs['model']}; lower max_new_tokens or use shorter prompts"
        )
    too_long = sorted({response.prompt_id for response in responses if response.finish == "too_long"})
    for prompt_id in too_long:
        job.log.warning("prompt %s leaves no room for %d new tokens and is dropped", prompt_id, config.max_new_tokens)
    job.rows["responses"] = write_table(job.folder, "responses", kept)
    job.summary["finish"] = dict(Counter(response.finish for response in kept))
    job.summary["mean_tokens"] = sum(response.tokens for response in kept) / len(kept)
    job.summary["distinct"] = len({(response.prompt_id, response.text) for response in kept}) / len(kept)
    job.summary["drops"] = {"prompt_too_long": len(too_long)}


def _prompts(folder: Path) -> list[Prompt]:
    """Each prompt once. Raises UserError for an empty pool."""
    prompts = {prompt.id: prompt for prompt in read_table(folder, "prompts")}
    if not prompts:
        raise UserError(f"{folder} holds no prompts to answer; add prompts to the recipe")
    return list(prompts.values())
