"""The suite `eval.suites.knowledge`. Torch-free."""

from pydantic import Field

from eval.suites.spec import SuiteConfig, estimate, suite_spec, wire


class KnowledgeConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.knowledge`."""

    path: str = Field(min_length=1)
    """A file of `question` or `prompt`, each with `answers`: a list of texts, any of which is right."""
    max_new_tokens: int = Field(64, ge=1)
    """Tokens an answer may have."""


SPEC = suite_spec("knowledge", KnowledgeConfig, wire, estimate)
