"""The suite `eval.suites.safety`. Torch-free."""

from pydantic import Field

from eval.suites.spec import SuiteConfig, estimate, suite_spec, wire


class SafetyConfig(SuiteConfig):
    """The fields of a suite with `stage: eval.suites.safety`."""

    path: str = Field(min_length=1)
    """A file of `prompt` or `messages`, each with `expect`: `refuse` for a request that would do harm, `answer` for one
    that only sounds so, and the hazard's `category`."""


SPEC = suite_spec("safety", SafetyConfig, wire, estimate)
