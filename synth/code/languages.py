"""The programming languages that code is made in, and what a teacher is told of each. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """One programming language."""

    name: str
    suffixes: tuple[str, ...]
    marks: tuple[str, ...]
    """What stands behind the backquotes of a block; the first is written, all are read."""
    use: str
    """How a text that uses a solution is to be written, for tests and for programs that print."""
    asserts: str
    """A regular expression of one assertion."""


_NODE = (
    "statements that run after the code in the same file (Node.js); import `assert` under a name of its own with "
    "`const check = require('node:assert')`"
)
_MAIN = "one function `void tests(void)` that is called for you; include what you need; write no main"

LANGUAGES = {
    "python": Language(
        "Python", (".py",), ("python", "py", "python3"),
        "statements that run after the code in the same namespace, with nothing to import of it", r"^\s*assert\b",
    ),
    "javascript": Language(
        "JavaScript", (".js", ".mjs"), ("javascript", "js"),
        _NODE, r"^\s*check\b",
    ),
    "bash": Language(
        "Bash", (".sh", ".bash"), ("bash", "sh", "shell"),
        "statements that run after the code in the same file, each test a line `[[ … ]] || exit 1`",
        r"\|\|\s*exit\s+[1-9]",
    ),
    "c": Language("C", (".c",), ("c",), f"{_MAIN}; include <assert.h>", r"\bassert\s*\("),
    "c++": Language(
        "C++", (".cpp", ".cc", ".cxx"), ("c++", "cpp", "cxx"), f"{_MAIN}; include <cassert>", r"\bassert\s*\("
    ),
    "typescript": Language("TypeScript", (".ts",), ("typescript", "ts"), _NODE, r"^\s*check\b"),
    "php": Language(
        "PHP", (".php",), ("php",),
        "statements that run after the code in the same file, without an opening tag; test with `assert`",
        r"\bassert\s*\(",
    ),
}  # fmt: skip


def language_of(path: str) -> str:
    """The language of a file by its suffix; empty for one that is none of LANGUAGES."""
    return next((key for key, one in LANGUAGES.items() if path.endswith(one.suffixes)), "")
