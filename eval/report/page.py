"""From a template to one HTML file that needs nothing else: no network, no fonts, a script that only sorts tables.

Every text that is not the template's own is escaped (Jinja's autoescape), and a content security policy lets no other
script run and nothing be loaded, whatever a row may hold.
"""

import base64
import hashlib
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.charts import share_bar
from posttrain.artifacts import write_durably
from posttrain.errors import UserError
from posttrain.rounds.view import clock, count, money, size

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Characters that a page cannot show; their pictures stand at U+2400."""
DELETE, PICTURE_OF_DELETE = 0x7F, 0x2421


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Render a template into a file, durably. Raises UserError where it cannot be written."""
    script = _source("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template(template).render(
        **content, style=Markup(_source("style.css")), script=Markup(script), script_hash=digest,
        version=metadata.version("posttrain"),
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, page.encode("utf-8", "replace").decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another file with --out") from error


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("eval.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "clock": clock, "count": count, "size": size, "points": points, "percent": percent, "p": p_value,
        "raw": visible, "number": lambda value: f"{value:,}", "bar": share_bar, "money": money, "short": short,
    }  # fmt: skip
    return environment


def visible(text: str) -> str:
    """A model's text with control characters as their pictures."""
    return CONTROL.sub(lambda m: chr(PICTURE_OF_DELETE if ord(m[0]) == DELETE else 0x2400 + ord(m[0])), text)


def short(source: str) -> str:
    """The last two parts of a path, which are what one knows a model by."""
    return "/".join(source.rstrip("/").split("/")[-2:])


def percent(share: float) -> str:
    """`45.9` of 0.459."""
    return f"{100 * share:.1f}"


def points(change: float) -> str:
    """`+4.6` of a change of shares by 0.046."""
    return f"{100 * change:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
