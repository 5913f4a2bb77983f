"""The suite `eval.suites.math`. Torch-free."""

from eval.suites.spec import FileSuiteConfig, suite_spec


class MathConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.math`. Its file holds `problem` or `question` with an `answer`
    (GSM8K's may end with `#### 18`) or a `solution` whose answer is in `\\boxed{}`."""


SPEC = suite_spec("math", MathConfig)
