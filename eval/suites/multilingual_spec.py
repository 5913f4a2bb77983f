"""The suite `eval.suites.multilingual`. Torch-free."""

from typing import Literal

from pydantic import Field

from eval.suites.spec import FileSuiteConfig, suite_spec

Language = Literal["en", "de", "fr", "it", "pt", "hi", "es", "th"]
LANGUAGES: tuple[Language, ...] = ("en", "de", "fr", "it", "pt", "hi", "es", "th")


class MultilingualConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.multilingual`. Its file holds MGSM's `question`, `answer` (or
    `answer_number`) and `language`."""

    languages: tuple[Language, ...] = Field(LANGUAGES, min_length=1)
    """Made are the same problems in each of these, `n` in all; of a file they are the ones that are taken."""


SPEC = suite_spec("multilingual", MultilingualConfig)
