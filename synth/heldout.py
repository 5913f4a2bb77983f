"""Evaluation prompts: different texts from the side of the world that is never trained on."""

from dataclasses import replace

from posttrain.data.rows import Prompt
from posttrain.data.shares import largest_remainder
from posttrain.data.tables import write_table
from posttrain.stages import Job
from synth.heldout_spec import HeldoutConfig
from synth.world import heldout


def run(job: Job) -> None:
    config: HeldoutConfig = job.config
    counts = largest_remainder(config.capabilities, config.n)
    prompts = [prompt for name, count in counts.items() for prompt in _prompts(config, name, count)]
    job.rows["prompts"] = write_table(job.folder, "prompts", sorted(prompts, key=lambda prompt: prompt.id))
    job.summary["capabilities"] = counts


def _prompts(config: HeldoutConfig, capability: str, count: int) -> list[Prompt]:
    """`count` different prompts of a capability, the levels as even as they go."""
    kept: dict[str, Prompt] = {}
    for level, share in largest_remainder({str(level): 1.0 for level in config.levels}, count).items():
        made_by = {"stage": "heldout", "level": int(level), "seed": config.seed}
        drawn = heldout(capability, share, config.seed, (int(level),), config.lengths)
        kept.update({prompt.id: replace(prompt, source="world", made_by=made_by) for prompt in drawn})
    return list(kept.values())
