"""Operator prompts: what a teacher is asked, one Jinja file for each capability and operator. Torch-free.

A template is checked before anything is asked: its syntax, every variable it reads against those it will be given, and
braces that Jinja would take for text. A fault is a UserError with file and line.
"""

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from posttrain.artifacts import file_sha256
from posttrain.errors import UserError
from posttrain.stages import External, Size

FOLDER = Path(__file__).parent
SUFFIX = ".jinja"
STRAY = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")
"""Marks of Jinja that were read as text: one brace too few or too many somewhere. `{% raw %}` makes them text."""
ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True)
class Wording:
    """The text of a template and where it stands, for messages."""

    text: str
    file: str
    first_line: int = 1

    def check(self, variables: Iterable[str]) -> None:
        """Raise UserError for faulty syntax, a stray brace, or a variable that is not among those given."""
        given = frozenset(variables)
        tree = self._parsed()
        unknown = meta.find_undeclared_variables(tree) - given
        for name in tree.find_all(nodes.Name):
            if name.name in unknown:
                raise UserError(f"{self._at(name.lineno)}: {name.name!r} is not given; {_given(given)}")
        for line, data in self._texts():
            stray = STRAY.search(data)
            single = next((f for f in re.finditer(r"\{\s*(\w+)\s*\}", data) if f[1] in given), None)
            if stray or single:
                found = stray or single
                assert found is not None
                line += data.count("\n", 0, found.start())
                told = f"{{{{ {single[1]} }}}}" if single and not stray else "two braces on each side, or {% raw %}"
                raise UserError(f"{self._at(line)}: a stray {found.group()!r}; write {told}")

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text with its variables. Raises UserError with file and line for a variable that is missing."""
        try:
            return _compiled(self).render(variables).strip()
        except TemplateError as error:
            raise UserError(f"{self._at(_line(error))}: {error}; {_given(variables)}") from error

    def own_lines(self, characters: int) -> list[str]:
        """The lines of its own words that are so long at least: an answer that holds one repeats the question."""
        lines = [" ".join(line.split()) for _, data in self._texts() for line in data.splitlines()]
        return [line for line in lines if len(line) >= characters]

    def _parsed(self) -> nodes.Template:
        try:
            return ENVIRONMENT.parse(self.text)
        except TemplateSyntaxError as error:
            raise UserError(f"{self._at(error.lineno)}: {error.message}; mend the template") from error

    def _texts(self) -> Iterator[tuple[int, str]]:
        """What is no markup, with its line; raw blocks are left out."""
        raw = False
        for line, kind, text in ENVIRONMENT.lex(self.text):
            raw = kind == "raw_begin" or (raw and kind != "raw_end")
            if kind == "data" and not raw:
                yield line, text

    def _at(self, line: int) -> str:
        return f"{self.file}:{self.first_line + line - 1}"


@cache
def _checked(wording: Wording, variables: tuple[str, ...]) -> None:
    """Once, however many rounds ask the same."""
    wording.check(variables)


def _given(variables: Iterable[str]) -> str:
    return f"given were {', '.join(sorted(variables)) or 'none'}"


@cache
def _compiled(wording: Wording) -> Template:
    wording._parsed()
    return ENVIRONMENT.from_string(wording.text)


def _line(error: TemplateError) -> int:
    """Where rendering stopped."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (lines[-1] if lines else None) or 1


@cache
def read_wording(path: Path) -> Wording:
    """A template's file. Raises UserError where it is missing, or not text."""
    try:
        return Wording(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the template {path} cannot be read ({error})") from error


def operator_file(name: str) -> Path:
    """The file of a template `capability/operator`. Raises UserError for an unknown one, naming those there are."""
    path = FOLDER / f"{name}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(operators(path.parent.name)) or "none"
        raise UserError(f"no operator prompt {name}; known for {path.parent.name} are {known}")
    return path


def operator_prompt(name: str, **variables: object) -> str:
    """The text of the template `capability/operator` with its variables.

    Raises UserError for an unknown operator, and with file and line for a variable that is missing.
    """
    return read_wording(operator_file(name)).render(variables)


def operators(capability: str) -> list[str]:
    """Names of a capability's operator prompts."""
    return sorted(path.stem for path in (FOLDER / capability).glob(f"*{SUFFIX}"))


def checked_templates(used: Mapping[str, tuple[str, ...]], own: Mapping[str, External]) -> list[External]:
    """The templates a pipeline uses (name → variables), in that order, as inputs whose content enters the key.

    `own` are a recipe's, in place of those of `synth/prompts`. Raises UserError for a faulty or unknown one.
    """
    unused = sorted(own.keys() - used.keys())
    if unused:
        raise UserError(f"templates: {unused[0]} is not asked here; known are {', '.join(sorted(used)) or 'none'}")
    found = []
    for name, variables in used.items():
        path = Path(own[name].source) if name in own else operator_file(name)
        _checked(read_wording(path), variables)
        found.append(own.get(name) or External(f"synth/prompts/{name}{SUFFIX}", file_sha256(path)[:16], Size()))
    return found
