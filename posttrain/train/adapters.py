"""LoRA by peft: adapters are trained, and merged into the weights when the stage ends."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from posttrain.chat import Renderer
from posttrain.engines.loading import Loaded, check_folder, check_vocabulary, load_model
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.train.settings import LoraConfig


def adapters(config: LoraConfig | None, model: Any) -> Any:
    """peft's settings for TRL's trainers, or None where all weights are trained."""
    if config is None:
        return None
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError as error:
        raise UserError('lora needs peft; install it with: pip install "posttrain[lora]"') from error
    scores = hasattr(model, "score")
    return PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, bias="none",
        target_modules=list(config.targets) or "all-linear", task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        modules_to_save=["score"] if scores else None,
    )  # fmt: skip


def four_bit(init: str | Path) -> Loaded:
    """A language model in 4 bits (NF4, twice quantised) on this process's CUDA device, computing in bfloat16."""
    if not torch.cuda.is_available():
        raise UserError(
            "lora.four_bit needs a CUDA device, and torch sees none; leave it out to train in full precision"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError('lora.four_bit needs bitsandbytes; install it with: pip install "posttrain[qlora]"') from error
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_folder(init)
    renderer = Renderer.from_pretrained(init)
    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        str(init), quantization_config=quantized, device_map={"": torch.cuda.current_device()}, use_safetensors=True,
        trust_remote_code=False,
    )  # fmt: skip
    check_vocabulary(init, model, renderer)
    return Loaded(model, renderer)


def merged(model: Any, init: str | Path) -> Any:
    """The model with its adapters in its weights; a model without adapters as it is.

    What was quantised is not merged into: its adapters go into the weights of `init` as they are stored.
    """
    if not hasattr(model, "peft_config"):
        return model
    if not getattr(model, "is_quantized", False):
        return model.merge_and_unload()
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        whole = load_model(init, Machine(device="cpu"), dtype=torch.float32).model
        return PeftModel.from_pretrained(whole, folder).merge_and_unload()
