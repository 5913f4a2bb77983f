"""A checkpoint folder: weights, tokenizer with its template, generation config, and a card of where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from posttrain.chat import Renderer
from posttrain.config import semantic
from posttrain.errors import StageFailed
from posttrain.stages import Job
from posttrain.train.adapters import merged
from posttrain.train.snapshots import gathered


def stored_dtype(path: str | Path) -> torch.dtype:
    """The dtype a checkpoint's config names, float32 where it names none."""
    return AutoConfig.from_pretrained(str(path), trust_remote_code=False).dtype or torch.float32


def save_checkpoint(job: Job, trainer: Any, renderer: Renderer, init: str | Path, data: dict[str, Any]) -> None:
    """Write the trained model, tokenizer, generation config and card into the job's folder.

    Training runs in float32; the weights are stored in the dtype of the checkpoint it started from, so that a bfloat16
    family stays servable as it is. Every later stage and the evaluation read what is stored. Every process takes part
    in gathering what was split; the main one writes. Raises StageFailed where a weight is no number.
    """
    state = gathered(trainer) if job.launch.splits_weights else None
    if not job.main:
        return
    model, dtype = merged(trainer.accelerator.unwrap_model(trainer.model), init), stored_dtype(init)
    check_numbers(job, dict(model.named_parameters()) if state is None else state, dtype)
    model.config.use_cache = True
    model.config.pad_token_id = renderer.pad_id
    if model.can_generate():
        _stop_at_end_of_turn(model, renderer)
    if state is None:
        model.to(dtype).save_pretrained(job.folder)
    else:
        model.config.dtype = dtype
        model.save_pretrained(job.folder, state_dict={name: value.to(dtype) for name, value in state.items()})
    readable_weights(job.folder)
    renderer.tokenizer.save_pretrained(job.folder)
    (job.folder / "README.md").write_text(card(job, data), encoding="utf-8")


def check_numbers(job: Job, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Raise StageFailed for a weight that is nan or inf, or becomes so in the dtype it is stored in: the log tells of
    the loss before the last step only."""
    for name, value in weights.items():
        if not bool(value.to(dtype).isfinite().all()):
            rate = job.config.learning_rate
            raise StageFailed(
                f"{job.name}: {name} is not finite in {str(dtype).removeprefix('torch.')}, and nothing was saved; "
                f"lower learning_rate ({rate:g}), or begin from a checkpoint in bfloat16 or float32"
            )


def readable_weights(folder: Path) -> None:
    """Give the weights the mode of the other files: safetensors lets only their owner read them."""
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def _stop_at_end_of_turn(model: Any, renderer: Renderer) -> None:
    """Plain `generate` stops where an answer ends: a base model's own settings know the end of a text only."""
    known = model.generation_config.eos_token_id
    known = [] if known is None else known if isinstance(known, list) else [known]
    model.generation_config.eos_token_id = list(dict.fromkeys([*renderer.stop_ids, *known]))
    model.generation_config.pad_token_id = renderer.pad_id


def card(job: Job, data: dict[str, Any]) -> str:
    """The model card: made from what (names only, no paths of this machine), on how much data, with which settings."""
    parents = {name: _names(value) for name, value in sorted(job.inputs.items())}
    settings = semantic(job.config)
    lines = [
        "---", "library_name: transformers", f"tags: [posttrain, {job.name or 'checkpoint'}]", "---",
        f"# {job.name or 'checkpoint'}, round {job.round}", "",
        *(f"- {name}: {value}" for name, value in parents.items()),
        *(f"- {name}: {value}" for name, value in data.items()),
        f"- seed: {job.seed}", "", "Settings:", "```json",
        json.dumps(settings, indent=1, ensure_ascii=False), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _names(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(item.name if isinstance(item, Path) else str(item) for item in values)
