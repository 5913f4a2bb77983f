"""What the stages run on: settings that change cost, never results."""

from posttrain.config import Config


class Machine(Config):
    """The recipe's `machine:` section. Nothing here enters a key."""

    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA when torch sees one."""
    threads: int = 0
    """CPU threads for torch; 0 takes all cores."""
    batch_tokens: int = 16_384
    """Tokens, padding included, that generation, scoring and evaluation put through the model at once."""
    micro_batch: int = 8
    """Rows a forward and backward pass takes in training; accumulation makes up the stage's `batch_size`."""
    teraflops: float = 0.06
    """Sustained TFLOP/s of all devices together, for the plan's estimate of time; the default is two CPU cores."""
    devices: int = 1
    """Accelerators the run may use, for the plan's device hours."""
