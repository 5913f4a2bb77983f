"""Equality of mathematical expressions by math-verify, in a process of its own.

The library stops itself with signals, which only a main thread can use, and computer algebra on what a model wrote may
never end or fill the memory (`9**9**9**9`). So it answers from a small process with limits, which is replaced when it
is late: `python -m posttrain.checks.mathematics` reads `[text, answers]` a line and writes `true`, `false` or
`{"error": text}`.
"""

import atexit
import importlib.util
import json
import os
import resource
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable

from posttrain.errors import UserError

SECONDS = 10.0
"""How long one comparison may take."""
START_SECONDS = 120.0
"""How long the process may take to import its library on a busy machine."""
MEMORY = 4 << 30
"""Bytes of address space the process may have."""
ASKED = 20_000
"""Characters at the end of an answer that are looked at."""


class _Server:
    """The process and its lock; started when first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, question: object) -> object:
        """The answer to a question, or None when it was not given in time or the process died of it."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass
            line = _line(process, SECONDS)
            if line is None:
                self._end()
                return None
            return json.loads(line)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )  # fmt: skip
            if _line(self._process, START_SECONDS) is None:
                self._end()
                raise UserError("math-verify did not start; try `python -c 'import math_verify'`")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _line(process: "subprocess.Popen[bytes]", seconds: float) -> bytes | None:
    """The next line of a process, or None when it does not come in time or at all."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            return None
    return process.stdout.readline() or None


_SERVER = _Server()
atexit.register(_SERVER._end)


def equal(text: str, answers: tuple[str, ...]) -> bool | None:
    """Whether the final answer of `text` equals one of `answers`; None where that took too long.

    Raises UserError when math-verify is missing, or an answer of the check is no mathematics.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("the math check needs a package that is missing: pip install 'posttrain[math]'")
    found = _SERVER.ask([text[-ASKED:], list(answers)])
    if isinstance(found, dict):
        raise UserError(f"check 'math': {found['error']}; write the answers of check.args as LaTeX or plain numbers")
    return None if found is None else bool(found)


def _comparer() -> Callable[[str, list[str]], object]:
    """math-verify's comparison; expressions of the check's answers are parsed once."""
    import functools

    from math_verify import parse, verify

    @functools.cache
    def gold(answer: str) -> list[object]:
        bare = answer if "$" in answer or "\\boxed" in answer else f"${answer}$"
        return list(parse(bare, fallback_mode="no_fallback", parsing_timeout=None))

    def compare(text: str, answers: list[str]) -> object:
        unreadable = [answer for answer in answers if not gold(answer)]
        if unreadable:
            return {"error": f"the answer {unreadable[0]!r} is no mathematics"}
        got = parse(text, parsing_timeout=None)
        return any(verify(gold(answer), got, timeout_seconds=None) for answer in answers)

    return compare


def main() -> None:
    """Answer questions until stdin ends; a question too large for the memory ends the process."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    compare = _comparer()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers.write("ready\n")
    for line in sys.stdin:
        text, wanted = json.loads(line)
        answers.write(json.dumps(compare(text, wanted)) + "\n")


if __name__ == "__main__":
    main()
