"""A model as the recipe wants it served: its weights, with another chat template, date or place of tools.

Weights and config are linked, not copied. The tokenizer is saved from the renderer, so that every later stage, and
whoever serves the checkpoint, reads the same template, date and padding token from it.
"""

import json
from pathlib import Path
from typing import Any

from posttrain.artifacts import link_file, write_durably
from posttrain.chat import Renderer
from posttrain.engines.folders import model_folder
from posttrain.engines.loading import check_folder
from posttrain.stages import Job
from posttrain.train.prepare_spec import PrepareConfig

LINKED = ("*.safetensors", "*.safetensors.index.json", "config.json", "README.md", "LICENSE*", "USE_POLICY*", "NOTICE*")
GENERATION = "generation_config.json"


def run(job: Job) -> None:
    """Write the checkpoint. Raises UserError for a model that is not there, or that the template does not fit."""
    config: PrepareConfig = job.config
    check_folder(job.inputs["model"])
    source = model_folder(job.inputs["model"], config.revision)
    check_folder(source)
    renderer = Renderer.from_pretrained(source, config.template, config.date, config.tools_in)
    renderer.tokenizer.save_pretrained(job.folder)
    for path in sorted({path for pattern in LINKED for path in source.glob(pattern)}):
        link_file(path, job.folder / path.name)
    settings = generation_settings(source, renderer)
    write_durably(job.folder / GENERATION, json.dumps(settings, indent=2) + "\n")
    job.summary |= {"dialect": renderer.dialect, "stop_ids": list(renderer.stop_ids), "pad_id": renderer.pad_id}


def generation_settings(source: Path, renderer: Renderer) -> dict[str, Any]:
    """The model's own settings, else those of its config, with the ends of turns and the padding of the renderer."""
    own, config = (_read(source / name) for name in (GENERATION, "config.json"))
    known = own.get("eos_token_id", config.get("eos_token_id"))
    known = [] if known is None else known if isinstance(known, list) else [known]
    bos = own.get("bos_token_id", config.get("bos_token_id"))
    return {
        **own,
        **({} if bos is None else {"bos_token_id": bos}),
        "eos_token_id": list(dict.fromkeys([*renderer.stop_ids, *known])),
        "pad_token_id": renderer.pad_id,
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
