"""Loading a model with its renderer, and one sentence for everything that can be wrong with the folder."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from posttrain.chat import Renderer
from posttrain.errors import UserError
from posttrain.machine import Machine

Kind = Literal["causal", "reward"]


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, and the renderer of its tokenizer."""

    model: Any
    renderer: Renderer

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device


def choose_device(machine: Machine) -> torch.device:
    """The device the machine names, CUDA before CPU for `auto`; also sets torch's threads."""
    cuda = torch.cuda.is_available()
    if machine.device.startswith("cuda") and not cuda:
        raise UserError(f"machine.device is {machine.device!r} but torch sees no CUDA device; use auto or cpu")
    torch.set_num_threads(machine.threads or len(os.sched_getaffinity(0)))
    return torch.device(("cuda" if cuda else "cpu") if machine.device == "auto" else machine.device)


def choose_dtype(device: torch.device) -> torch.dtype:
    """float32 on CPU, bfloat16 on accelerators."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def load_model(path: str | Path, machine: Machine, kind: Kind = "causal", dtype: torch.dtype | None = None) -> Loaded:
    """Load safetensors weights and tokenizer of a folder or hub name, in `dtype` or else that of `choose_dtype`.

    `causal` is a language model, `reward` a sequence classifier with one label. With `machine.shard` accelerate splits
    the layers over the devices; the model then takes its inputs on the first, and gives its outputs there.

    Raises UserError for a folder that is missing or lacks config.json or safetensors, for weights that are broken or
    lack a tensor, for a tokenizer that cannot be used, and for one with more tokens than the embedding has rows.
    """
    check_folder(path)
    renderer = Renderer.from_pretrained(path)
    device = choose_device(machine)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    options: dict[str, Any] = {} if kind == "causal" else {"num_labels": 1}
    if machine.shard:
        options["device_map"] = "auto" if device.type == "cuda" else {"": device}
    transformers_logging.disable_progress_bar()
    try:
        model, info = auto.from_pretrained(
            str(path), dtype=dtype or choose_dtype(device), use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, **options,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the model of {path} cannot be loaded ({reason}); mend config.json or the weights") from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        wanted = "a language model" if kind == "causal" else "a reward model (one-label sequence classifier)"
        raise UserError(f"the weights of {path} lack {names}; name a checkpoint of {wanted}")
    check_vocabulary(path, model, renderer)
    return Loaded((model if machine.shard else model.to(device)).eval(), renderer)


def check_folder(path: str | Path) -> None:
    """Raise UserError when `path` is a place on this machine that holds no loadable model; hub names pass."""
    folder = Path(path)
    if not folder.exists():
        if isinstance(path, str) and path.count("/") <= 1 and path[:1] not in "./~":
            return
        raise UserError(f"model {path} does not exist; name a checkpoint folder or a hub model")
    if not folder.is_dir():
        raise UserError(f"model {path} is a file; name the folder that holds config.json and the weights")
    if not (folder / "config.json").is_file():
        raise UserError(f"model {path} has no config.json; name a checkpoint folder in Hugging Face format")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the config.json of model {path} cannot be read ({error}); save the model again") from error
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model {path} has no *.safetensors; save it with save_pretrained (pickles are not read)")


def check_vocabulary(path: str | Path, model: Any, renderer: Renderer) -> None:
    """Raise UserError when a token of the tokenizer has no row in the embedding."""
    rows, tokens = model.get_input_embeddings().num_embeddings, len(renderer.tokenizer)
    if tokens > rows:
        raise UserError(
            f"the tokenizer of {path} has {tokens:,} tokens but the model's embedding {rows:,} rows; "
            "use the model's own tokenizer"
        )
