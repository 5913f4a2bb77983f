"""The arithmetic of the plan: tokens and parameters to seconds and bytes. `docs/estimates.md` shows it worked out.

Forward 2 FLOPs a parameter and token, training 6 (Kaplan et al. 2020, 2001.08361, section 2.1). Weights are counted as
bf16; training as fp32 weights, gradients and two Adam moments. Activations are left out of generation and counted
for one micro-batch in training.
"""

from pathlib import Path

from posttrain.machine import Machine

ANSWER_SHARE = 0.2
"""What an answer takes of the tokens it may have. In Llama 3's data an answer has 284 tokens (preferences, 2407.21783,
table 6) to 536 (SFT, table 7), 0.14 to 0.26 of the 2,048 that the recipes give it; in the quick start it is 0.13 to
0.17."""
DECODING = 8
"""How many times the work of a token that is read one is that is written: decoding reads all weights for a few tokens
at a time. Measured: 10 for the tiny models on two cores; vLLM gives 4 on one H100 with many requests under way."""
FORWARD_FLOPS = 2
TRAINING_FLOPS = 6
WEIGHT_BYTES = 2
TRAINING_BYTES = 16
PROCESS_BYTES = 800 << 20
"""What a process with torch, transformers and TRL holds beside the model; 0.7 to 1.2 GiB with it in the quick start."""
GPU = Path("/dev/nvidiactl")
"""Where this is, `auto` will be CUDA; torch is not asked, because importing it takes longer than a plan may."""
ACTIVATION_BYTES = 34
"""Bytes a token, layer and hidden unit keeps for the backward pass (Korthikanti et al. 2022, 2205.05198, equation 2,
without attention scores)."""


def forward_seconds(parameters: int, tokens: float, machine: Machine) -> float:
    return FORWARD_FLOPS * parameters * tokens / (machine.teraflops * 1e12)


def answer_tokens(max_new_tokens: int) -> float:
    """What an answer is expected to take of the tokens it may have."""
    return max(1.0, ANSWER_SHARE * max_new_tokens)


def generation_seconds(parameters: int, read: float, written: float, machine: Machine) -> float:
    """Reading so many tokens of prompts and writing so many of answers."""
    return forward_seconds(parameters, read + DECODING * written, machine)


def training_seconds(parameters: int, tokens: int, machine: Machine) -> float:
    return TRAINING_FLOPS * parameters * tokens / (machine.teraflops * 1e12)


def forward_memory(parameters: int) -> int:
    return WEIGHT_BYTES * parameters


def process_memory(machine: Machine) -> int:
    """What stands beside the model in the memory that is counted: nothing on a GPU, the process on a CPU."""
    on_gpu = GPU.exists() if machine.device == "auto" else machine.device != "cpu"
    return 0 if on_gpu else PROCESS_BYTES


def training_memory(parameters: int, micro_batch_tokens: int) -> int:
    """Depth and width are taken from the parameter count: 12 · layers · hidden² ≈ parameters, hidden ≈ 128 · layers."""
    layers = max(1.0, (parameters / (12 * 128**2)) ** (1 / 3))
    return int(TRAINING_BYTES * parameters + ACTIVATION_BYTES * micro_batch_tokens * layers * 128 * layers)
