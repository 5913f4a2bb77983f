"""Source files of a folder, and what is drawn from them: a few lines to start from, or a whole function."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from posttrain.chat import CONTROL_TOKENS
from posttrain.errors import UserError
from synth.code.languages import LANGUAGES, language_of
from synth.code.linting import findings
from synth.documents import INSTRUCTIONS

LEAST_LINES, MOST_LINES = 5, 20
"""Lines of a snippet to start from that are not blank."""
UNIT_LINES = (4, 60)
"""Lines of a function, or of a whole file in a language that is not taken apart."""
MOST_FILE = 1 << 20
"""Bytes; what is larger was made by a program."""


@dataclass(frozen=True)
class Snippet:
    """A piece of a file. `title` is its path below the folder with its lines."""

    title: str
    text: str
    language: str


class Sources:
    """The source files of a folder, or one file. Files that cannot be used are left out, `faults` says why.

    Raises UserError where none is left.
    """

    def __init__(self, folder: Path):
        self.faults: dict[str, str] = {}
        self.files: list[Snippet] = []
        paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
        for path in paths:
            title = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
            if language_of(title) and path.stat().st_size <= MOST_FILE:
                self._take(title, path)
        if not self.files:
            suffixes = " ".join(suffix for one in LANGUAGES.values() for suffix in one.suffixes)
            why = next((f"; {title}: {reason}" for title, reason in self.faults.items()), "")
            raise UserError(f"snippets: {folder} holds no usable source file ({suffixes}){why}")

    def _take(self, title: str, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            self.faults[title] = "not UTF-8"
            return
        if any(token in text for token in CONTROL_TOKENS):
            self.faults[title] = "control tokens in the document"
        elif INSTRUCTIONS.search(text):
            self.faults[title] = "instructions in the document"
        elif text.strip():
            self.files.append(Snippet(title, text, language_of(title)))

    def lines(self, rng: Random) -> Snippet:
        """Some lines of a file, from a place of its own."""
        file = rng.choice(self.files)
        lines = file.text.splitlines()
        count = rng.randint(LEAST_LINES, MOST_LINES)
        start = rng.randrange(max(1, len(lines) - count + 1))
        text = "\n".join(lines[start : start + count]).strip("\n")
        return Snippet(f"{file.title}:{start + 1}", text or file.text.strip()[:1000], file.language)

    @cached_property
    def units(self) -> list[Snippet]:
        """Whole functions of Python files in which every name is known, and short files of other languages."""
        python = [unit for file in self.files if file.language == "python" for unit in _functions(file)]
        found = findings([unit.text for unit in python])
        alone = [unit for unit, faults in zip(python, found, strict=True) if not faults]
        return [*alone, *(file for file in self.files if file.language != "python" and _fits(file.text))]


def _functions(file: Snippet) -> Iterator[Snippet]:
    """The functions of a Python file's top level, without decorators, with a body that can be explained, each behind
    the imports of the standard library that it uses."""
    try:
        tree = ast.parse(file.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = file.text.splitlines()
    imports = _imports(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
            if _fits(text):
                used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
                needed = "".join(f"{line}\n" for name, line in sorted(imports.items()) if name in used)
                yield Snippet(f"{file.title}:{node.lineno}", f"{needed}\n\n{text}" if needed else text, file.language)


def _imports(tree: ast.Module) -> dict[str, str]:
    """Name → the statement that imports it, of a file's imports of the standard library."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            of_standard = [one for one in node.names if _standard(one.name)]
            found |= {(one.asname or one.name).partition(".")[0]: ast.Import([one]) for one in of_standard}
        elif isinstance(node, ast.ImportFrom) and not node.level and _standard(node.module or ""):
            found |= {one.asname or one.name: ast.ImportFrom(node.module, [one], 0) for one in node.names}
    return {name: ast.unparse(statement) for name, statement in found.items()}


def _standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _fits(text: str) -> bool:
    least, most = UNIT_LINES
    return least <= len(text.splitlines()) <= most
