"""A second stage: adds up the numbers of the first and calls the sum a checkpoint."""

from posttrain.config import Config
from posttrain.stages import Size, StageSpec


class TotalConfig(Config):
    factor: float = 1.0
    """The sum is multiplied by it."""


SPEC = StageSpec(
    module="example_total",
    version=1,
    Config=TotalConfig,
    provides=lambda config: ("checkpoint",),
    wire=lambda config, scope: {"rows": scope.newest("rows"), "settings": scope.file("settings.txt")},
    estimate=lambda config, sizes, machine: Size(rows=1, seconds=0.1, note=f"factor {config.factor:g}"),
)
