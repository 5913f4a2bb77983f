"""The suite `eval.suites.code`. Torch-free."""

from pydantic import Field, field_validator, model_validator

from eval.suites.spec import FileSuiteConfig, suite_spec


class CodeConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.code`. Its file holds HumanEval's records (`prompt`, `test`,
    `entry_point`, `canonical_solution`) or MBPP's (`text`, `test_list`, `code`)."""

    max_new_tokens: int = Field(512, ge=1)
    """Tokens an answer may have."""
    samples: int = Field(1, ge=1, le=1000)
    """Answers to each prompt; pass@k for k above 1 needs as many."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy, which gives only one answer."""
    passes: tuple[int, ...] = Field((1,), min_length=1)
    """The k of pass@k, by the unbiased estimator of arXiv 2107.03374."""

    @field_validator("passes")
    @classmethod
    def _positive(cls, passes: tuple[int, ...]) -> tuple[int, ...]:
        if min(passes) < 1:
            raise ValueError("k of pass@k is at least 1")
        return passes

    @model_validator(mode="after")
    def _enough(self) -> "CodeConfig":
        if max(self.passes) > self.samples:
            raise ValueError(f"pass@{max(self.passes)} needs as many samples; there are {self.samples}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples need a temperature above 0")
        return self


SPEC = suite_spec("code", CodeConfig)
