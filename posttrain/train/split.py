"""A model for one process of a launch: whole on its device, or the part that DeepSpeed's ZeRO-3 or FSDP 2 gives it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from torch.nn import Parameter
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from posttrain.chat import Renderer
from posttrain.engines.loading import Loaded, load_model
from posttrain.stages import Job


def load_own(job: Job, path: str | Path, dtype: torch.dtype) -> Loaded:
    """A language model for this process of a launch, on its device, or in CPU memory where the launcher is to split
    and place the weights."""
    machine = job.machine.alone()
    if not job.launch.splits_weights:
        return load_model(path, machine, dtype=dtype)
    if has_weights(job):
        return load_model(path, machine.model_copy(update={"device": "cpu"}), dtype=dtype)
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    model = without_weights(lambda: AutoModelForCausalLM.from_config(config, dtype=dtype))
    return Loaded(model.eval(), Renderer.from_pretrained(path))


def has_weights(job: Job) -> bool:
    """Whether this process reads the weights. FSDP takes them from the main one, and nothing of the others."""
    return job.launch.sharding != "fsdp2" or job.main


def without_weights(build: Callable[[], Any]) -> Any:
    """The model that `build` makes, of tensors that nobody writes to, so that they take no memory. They have to be
    somewhere, since accelerate tells the optimizer's parameters apart by their addresses."""
    with init_empty_weights():
        model = build()
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, Parameter(torch.empty_like(parameter, device="cpu")))
    model.tie_weights()
    return model


def open_part(job: Job, accelerator: Accelerator, path: str | Path) -> Loaded:
    """A language model with TRL's fused head, for this process: whole on its device, or its part where the launcher
    splits weights. Those wait for it in the bfloat16 in which what splits them computes on CUDA."""
    half = job.launch.splits_weights and accelerator.device.type == "cuda"
    loaded = load_own(job, path, torch.bfloat16 if half else torch.float32)
    loaded.model.requires_grad_(False)
    add_fused_lm_head(loaded.model)
    if not job.launch.splits_weights:
        return loaded
    split = _split_by_fsdp if job.launch.sharding == "fsdp2" else _split_by_deepspeed
    model = split(accelerator, loaded.model)
    model.eval()
    return replace(loaded, model=model)


def _split_by_fsdp(accelerator: Any, model: Any) -> Any:
    """Layer by layer, as training does it; TRL's own helper would gather the whole model at once."""
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model)


def _split_by_deepspeed(accelerator: Any, model: Any) -> Any:
    import deepspeed

    plugin = accelerator.state.deepspeed_plugin
    alone = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": 0.0}
    plugin.deepspeed_config_process(must_match=False, **alone)
    settings = deepcopy(plugin.deepspeed_config)
    settings["zero_optimization"].pop("offload_optimizer", None)  # there is none
    return deepspeed.initialize(model=model, config=settings)[0]
