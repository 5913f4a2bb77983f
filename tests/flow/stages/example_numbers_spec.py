"""A user's own stage, as small as one can be: draws numbers in chunks, and fails on request."""

from typing import Literal

from posttrain.config import Config, operational
from posttrain.stages import Size, StageSpec


class NumbersConfig(Config):
    chunks: int = 5
    """How many chunks."""
    pause: float = operational(0.0)
    """Seconds each chunk takes."""
    trail: str = operational("")
    """A file that gets a line for each chunk that was computed; empty writes none."""
    fault: Literal["none", "exception", "user", "kill", "gate", "full"] = operational("none")
    """What happens after the second chunk."""


SPEC = StageSpec(
    module="example_numbers",
    version=1,
    Config=NumbersConfig,
    provides=lambda config: ("rows",),
    wire=lambda config, scope: {},
    estimate=lambda config, sizes, machine: Size(rows=config.chunks * 3, seconds=config.pause * config.chunks),
)
