"""The suite `eval.suites.chat`. Torch-free."""

from pydantic import Field

from eval.suites.spec import SuiteConfig, estimate, suite_spec, wire


class ChatConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.chat`. A judge must be named at `evaluate:`."""

    path: str = Field(min_length=1)
    """A file of `prompt` or `messages`, each with a `reference` answer that the model's own is compared with."""
    max_new_tokens: int = Field(512, ge=1)
    """Tokens an answer may have."""


SPEC = suite_spec("chat", ChatConfig, wire, estimate)
