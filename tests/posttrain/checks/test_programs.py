"""Python answers graded by tests, in the sandbox."""

import pytest

from posttrain.checks import sandbox
from posttrain.checks.programs import code_of
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check

ADD = Check("python_tests", {"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "seconds": 3})


@pytest.fixture
def sandboxed() -> None:
    if fault := sandbox.fault():
        pytest.skip(fault)


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nUse it so:\n```python\nadd('1', 2)\n```",
            "right",
        ),
        ("def add(a, b):\n    return a + b", "right"),
        ("def add(a, b):\n    return a + b or None", "test 2 of 2: AssertionError"),
        ("def add(a, b): return a - b", "test 1 of 2: AssertionError"),
        ("def plus(a, b): return a + b", "test 1 of 2: NameError"),
        ("def add(a, b)", "the answer itself: SyntaxError"),
        ("import os\nos._exit(0)", "ended itself"),
        ("import sys\nsys.exit(0)", "the answer itself: SystemExit"),
        ("print('\"\"')\nwhile True: pass", "over its limit of time"),
        ("", "empty"),
    ],
)
def test_only_code_that_passes_every_test_is_right(text: str, reason: str) -> None:
    verdict = grade(ADD, {"role": "assistant", "content": text})
    assert (verdict.reason, verdict.value) == (reason, 1.0 if reason == "right" else 0.0)


def test_the_code_of_an_answer() -> None:
    assert code_of("```\na\n```\n```py\nb\n```") == "b\n"
    assert code_of("```text\na\n```") == "a\n"
    assert code_of("```python\nunfinished") == "unfinished"
    assert code_of("plain") == "plain"
