"""What the stages run on: settings that change cost, never results."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from posttrain.config import Config


class Machine(Config):
    """The recipe's `machine:` section. Nothing here enters a key."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda`, or `auto`: CUDA when torch sees one."""
    threads: int = Field(0, ge=0)
    """CPU threads for torch; 0 takes all cores."""
    batch_tokens: int = Field(16_384, ge=1)
    """Tokens, padding included, that generation, scoring and evaluation put through the model at once."""
    train_tokens: int = Field(16_384, ge=1)
    """Tokens, padding included, of a forward and backward pass in training, on each device; accumulation makes up the
    stage's `batch_size`. A longer row still goes alone."""
    teraflops: float = Field(0.08, gt=0)
    """Sustained TFLOP/s of all devices together, for the plan's estimate of time; the default is two CPU cores."""
    devices: int = Field(1, ge=1)
    """Accelerators the run may use, over all machines: the processes of a launched training, and the plan's device
    hours. Where `device` is `cpu`, processes."""
    nodes: int = Field(1, ge=1)
    """Machines that share the devices of a launched training. Above 1, `posttrain launch` is given on each of them."""
    address: str = ""
    """`host:port` of the first machine, on which the run is given; needed where `nodes` is above 1."""
    engine: Literal["transformers", "vllm", "vllm-serve", "transformers-serve"] = "transformers"
    """What answers for models that are files: `transformers` or `vllm` in the stage's own process, or a server that the
    stage starts, uses over HTTP and stops. The same distribution is sampled from; the draws differ."""
    workers: int = Field(1, ge=1)
    """Processes that sample, score and compute a reference's log-probs side by side, each with a copy of the model and,
    on GPUs, a device of its own. The rows are those of one process when `threads` is given, because sums depend on it.
    A vLLM server takes it as data-parallel size."""
    shard: bool = False
    """Split the layers of a model that is larger than a device over all that torch sees, for sampling, scoring and
    evaluation by transformers; one works at a time. vLLM has `tensor_parallel` for it, training its launchers."""
    tensor_parallel: int = Field(1, ge=1)
    """Devices that vLLM splits each copy of the model over, for one that is larger than a device."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """The share of a device's memory that vLLM takes."""
    untrusted_code: Literal["sandbox", "run_unsandboxed"] = "sandbox"
    """What is done with code that a model wrote: run in the sandbox, and refused where this machine has none, or, in
    these words, run with the rights of the run itself (docs/sandbox.md)."""

    def model_post_init(self, context: Any) -> None:
        if self.shard and self.workers > 1:
            raise ValueError("shard gives one process all devices and workers each process its own; set one of them")

    def alone(self) -> "Machine":
        """For a process of training, or one of several workers: its own device and no other."""
        return self.model_copy(update={"workers": 1, "shard": False})


Sharding = Literal["none", "ddp", "fsdp2", "zero2", "zero3"]
INLINE = "inline"
"""The launcher that is none: training runs in the warm worker."""


@dataclass(frozen=True)
class Launch:
    """How the processes of a training were started, which is what the trainer has to find."""

    name: str = INLINE
    processes: int = 1
    sharding: Sharding = "none"
    sequence: int = 1
    """Processes that share each row, where rows are longer than a device holds; 1 leaves rows whole."""
    rank: int = 0
    """Number of this process among all; 0 writes the artifact."""

    @property
    def splits_weights(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return self.sharding in ("fsdp2", "zero3")

    @property
    def groups(self) -> int:
        """Processes, or groups of them that share rows, which get rows of their own."""
        return self.processes // self.sequence
