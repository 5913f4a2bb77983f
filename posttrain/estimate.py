"""The arithmetic of the plan: tokens and parameters to seconds and bytes. `docs/estimates.md` shows it worked out.

Forward 2 FLOPs a parameter and token, training 6 (Kaplan et al. 2020, 2001.08361, section 2.1). Weights are counted as
bf16; training as fp32 weights, gradients and two Adam moments. Activations are left out of generation and counted
for one micro-batch in training.
"""

from posttrain.machine import Machine

FORWARD_FLOPS = 2
TRAINING_FLOPS = 6
WEIGHT_BYTES = 2
TRAINING_BYTES = 16
ACTIVATION_BYTES = 34
"""Bytes a token, layer and hidden unit keeps for the backward pass (Korthikanti et al. 2022, 2205.05198, equation 2,
without attention scores)."""


def forward_seconds(parameters: int, tokens: int, machine: Machine) -> float:
    return FORWARD_FLOPS * parameters * tokens / (machine.teraflops * 1e12)


def training_seconds(parameters: int, tokens: int, machine: Machine) -> float:
    return TRAINING_FLOPS * parameters * tokens / (machine.teraflops * 1e12)


def forward_memory(parameters: int) -> int:
    return WEIGHT_BYTES * parameters


def training_memory(parameters: int, micro_batch_tokens: int) -> int:
    """Depth and width are taken from the parameter count: 12 · layers · hidden² ≈ parameters, hidden ≈ 128 · layers."""
    layers = max(1.0, (parameters / (12 * 128**2)) ** (1 / 3))
    return int(TRAINING_BYTES * parameters + ACTIVATION_BYTES * micro_batch_tokens * layers * 128 * layers)
