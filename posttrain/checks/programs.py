"""Programs that a model wrote, graded by tests in the sandbox."""

import json
import re
import secrets
from collections.abc import Sequence

from pydantic import Field

from posttrain.checks.sandbox import Limits, run_python
from posttrain.checks.verdict import NOT_TEXT, RIGHT, Args, Verdict, text_of
from posttrain.data.rows import Message

_FENCED = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_HARNESS = """\
import json, sys
_code, _tests, _word = json.loads({payload!r})
_names = {{"__name__": "answer"}}
_at = "the answer itself"
try:
    exec(compile(_code, "answer.py", "exec"), _names)
    for _number, _test in enumerate(_tests, 1):
        _at = f"test {{_number}} of {{len(_tests)}}"
        exec(compile(_test, f"test_{{_number}}.py", "exec"), _names)
except BaseException as _error:
    print(_word + json.dumps(f"{{_at}}: {{type(_error).__name__}}"), flush=True)
else:
    print(_word + json.dumps(""), flush=True)
"""


class PythonArgs(Args):
    """Tests of a Python answer."""

    tests: Sequence[str] = Field(min_length=1)
    """Each a piece of Python that sees the answer's names and raises (`assert add(1, 2) == 3`) where it is wrong."""
    seconds: float = Field(10.0, gt=0, le=600)
    """Wall-clock time for the answer and all its tests."""
    memory_mib: int = Field(1024, ge=64)
    """Memory in MiB."""


def code_of(text: str) -> str:
    """The first fenced block marked as Python, else the first block, else the whole text."""
    blocks = [(mark.lower(), body) for mark, body in _FENCED.findall(text)]
    marked = [body for mark, body in blocks if mark in ("python", "py", "python3")]
    return next(iter([*marked, *(body for _, body in blocks)]), text)


def python_tests(message: Message, args: PythonArgs) -> Verdict:
    """The answer's code passes every test, in the sandbox.

    The result comes after a random word, so that an answer that ends the process early or prints a result is not right.
    """
    text = text_of(message)
    if text is None:
        return NOT_TEXT
    if not text:
        return Verdict(0.0, "empty")
    word = secrets.token_hex(16)
    program = _HARNESS.format(payload=json.dumps([code_of(text), list(args.tests), word]))
    ran = run_python(program, Limits(seconds=args.seconds, memory=args.memory_mib << 20))
    told = [line.removeprefix(word) for line in ran.stdout.splitlines() if line.startswith(word)]
    if told:
        failed = json.loads(told[0])
        return Verdict(0.0, failed) if failed else RIGHT
    return Verdict(0.0, "ended itself" if ran.ended == "exit" else f"over its limit of {ran.ended}")
