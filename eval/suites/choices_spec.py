"""The suite `eval.suites.choices`. Torch-free."""

from typing import Literal

from eval.suites.spec import FileSuiteConfig, suite_spec


class ChoicesConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.choices`. Its file holds `question`, `choices` and `answer` (a
    letter, or a number from 0), as MMLU does."""

    max_new_tokens: int = 16
    """Tokens an answer may have, where it is generated."""
    by: Literal["letter", "likelihood"] = "letter"
    """`letter`: the model writes the letter; `likelihood`: of the choices' texts the likeliest counts, normalised by
    tokens. That needs the model's own files, since servers do not tell the probability of given texts."""


SPEC = suite_spec("choices", ChoicesConfig)
