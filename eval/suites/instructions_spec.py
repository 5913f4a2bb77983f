"""The suite `eval.suites.instructions`. Torch-free."""

from eval.suites.spec import FileSuiteConfig, suite_spec


class InstructionsConfig(FileSuiteConfig):
    """The fields of a suite with `stage: eval.suites.instructions`. Its file holds IFEval's `prompt`,
    `instruction_id_list` and `kwargs`."""


SPEC = suite_spec("instructions", InstructionsConfig)
