"""A stage without a model: one prompt with two answers, as prompts and responses."""

from posttrain.config import Config
from posttrain.stages import Size, StageSpec


class AnswersConfig(Config):
    text: str = "Capital of Italy?"
    """What the prompt asks."""


SPEC = StageSpec(
    module="example_answers",
    version=1,
    Config=AnswersConfig,
    provides=lambda config: ("prompts", "responses"),
    wire=lambda config, scope: {},
    estimate=lambda config, sizes, machine: Size(rows=1, tokens=30),
)
