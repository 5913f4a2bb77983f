"""Operator prompts: what a teacher is asked, one Jinja file for each capability and operator."""

import traceback
from functools import cache
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from posttrain.errors import UserError

FOLDER = Path(__file__).parent


def operator_prompt(capability: str, operator: str, **variables: object) -> str:
    """The text of `synth/prompts/<capability>/<operator>.jinja` with its variables.

    Raises UserError for an unknown operator, and with file and line for a variable that is missing.
    """
    path = FOLDER / capability / f"{operator}.jinja"
    template = _template(path)
    try:
        return template.render(variables).strip()
    except TemplateError as error:
        raise UserError(
            f"{_place(path, error)}: {error}; given were {', '.join(sorted(variables)) or 'none'}"
        ) from error


def operators(capability: str) -> list[str]:
    """Names of a capability's operator prompts."""
    return sorted(path.stem for path in (FOLDER / capability).glob("*.jinja"))


@cache
def _template(path: Path) -> Template:
    if not path.is_file():
        known = ", ".join(operators(path.parent.name)) or "none"
        raise UserError(f"no operator prompt {path.parent.name}/{path.stem}; known for it are {known}")
    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text(encoding="utf-8"))
    except TemplateSyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.message}; mend the template") from error


def _place(path: Path, error: TemplateError) -> str:
    """`file:line` of the template where rendering stopped."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f"{path}:{lines[-1] if lines else 1}"
