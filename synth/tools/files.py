"""Files that programs read and write: uploads for data analysis, results of file generation (P 4.3.5)."""

import ast
import base64
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from posttrain.chat import CONTROL_TOKENS
from posttrain.checks import sandbox
from posttrain.checks.tools import Executor, python
from posttrain.checks.walls import PACKAGES
from posttrain.data.rows import Tool, content_id
from posttrain.errors import UserError
from synth.documents import INSTRUCTIONS
from synth.tools.office import LINE, NAMES, OFFICE, packages, text_of

TEXT = ("csv", "tsv", "json", "jsonl", "txt", "html", "xml", "py")
"""Of the paper's list (P 4.3.5) those that are text; OFFICE has the others."""
MOST_BYTES = 1_000_000
"""Of an uploaded file; of all that a program leaves behind, together."""

PROGRAM = """\
import base64, json, os, sys, traceback
WORD, MOST, FILES, CODE = json.loads({payload!r})
for name, content in FILES.items():
    with open(name, "wb") as file:
        file.write(base64.b64decode(content))
code = 0
try:
    exec(compile(CODE, "program.py", "exec"), {{"__name__": "__main__"}})
except SystemExit as error:
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
except BaseException as error:
    traceback.print_exception(type(error), error, error.__traceback__.tb_next)
    code = 1
found = {{}}
for name in sorted(os.listdir(".")):
    if os.path.isfile(name) and os.path.getsize(name) <= MOST:
        try:
            with open(name, "rb") as file:
                content = base64.b64encode(file.read()).decode()
        except OSError:
            continue
        if FILES.get(name) != content:
            found[name] = content
sys.stdout.flush()
if sum(map(len, found.values())) * 3 // 4 <= MOST:
    sys.__stdout__.write("\\n" + WORD + json.dumps(found) + "\\n")
sys.__stdout__.flush()
os._exit(code)
"""


class Desk:
    """A working folder of one dialog: what was uploaded, and what its programs have written so far. With `office` they
    have the packages for OFFICE at hand."""

    def __init__(self, files: Mapping[str, bytes], office: bool = False):
        self.uploaded, self.office = dict(files), office
        self.files = dict(files)

    @property
    def written(self) -> dict[str, bytes]:
        """The files that the programs made or changed."""
        return {name: content for name, content in self.files.items() if self.uploaded.get(name) != content}

    def executor(self) -> Executor:
        """The tool `python` in this folder."""
        return Executor(schema_of(self.office), self.run)

    def run(self, code: str) -> dict[str, Any]:
        """What a program printed and said of its failure, and the names of the `files` it wrote."""
        if len(code) > python.MOST_CODE:
            raise ValueError(f"the program has {len(code):,} characters; {python.MOST_CODE:,} are taken")
        files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        word = content_id("files of", code, files)
        program = PROGRAM.format(payload=json.dumps([word, MOST_BYTES, files, python.shown(code)]))
        limits = sandbox.Limits(
            python.LIMITS.seconds, python.LIMITS.memory, python.LIMITS.processes, python.LIMITS.output + 4 * MOST_BYTES
        )
        ran = sandbox.run_python(LINE.format(packages=PACKAGES) + program, limits, packages() if self.office else ())
        stdout, written = _parted(ran.stdout, word)
        self.files |= written
        found: dict[str, Any] = {"stdout": stdout[: python.LIMITS.output], "stderr": ran.stderr[-python.MOST_STDERR :]}
        if ran.ended != "exit":
            found["error"] = f"the program {python.WORDS[ran.ended]} and was ended"
        elif ran.code:
            found["error"] = f"the program ended with code {ran.code}"
        if written:
            found["files"] = sorted(written)
        return {name: told for name, told in found.items() if told} or {"stdout": ""}


def _parted(stdout: str, word: str) -> tuple[str, dict[str, bytes]]:
    """What the program printed, and the files that stand behind the word."""
    printed, found, told = stdout.rpartition(f"\n{word}")
    if not found:
        return stdout, {}
    return printed, {name: base64.b64decode(content) for name, content in json.loads(told).items()}


def schema_of(office: bool) -> Tool:
    """The tool `python`, as it is declared where programs have the packages for OFFICE or not."""
    if not office:
        return python.SCHEMA
    function = python.SCHEMA["function"]
    told = function["description"].replace("the standard library", f"the standard library, {NAMES}")
    return {**python.SCHEMA, "function": {**function, "description": told}}


def kind_of(name: str) -> str:
    """A file's type by its ending."""
    return name.rpartition(".")[2].lower()


@dataclass(frozen=True)
class Upload:
    """A file of a user's. `text` is its own, or of an office file what the sandbox read of it; "" where it has none."""

    content: bytes
    text: str


def uploads(folder: Path) -> dict[str, Upload]:
    """The files of the known types in a folder by name, without those that are too large.

    Raises UserError where there is none, and for office files where they cannot be read here.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if kind_of(path.name) in (*TEXT, *OFFICE) and path.is_file() and path.stat().st_size <= MOST_BYTES:
            content = path.read_bytes()
            found[path.name] = Upload(content, _text(path.name, content))
    if not found:
        types = ", ".join((*TEXT, *OFFICE))
        raise UserError(f"files: {folder} holds no file of at most {MOST_BYTES:,} bytes that ends with {types}")
    return found


def _text(name: str, content: bytes) -> str:
    """What a file says; "" where it is not what its ending promises, or says nothing."""
    kind = kind_of(name)
    try:
        text = text_of(kind, content) if kind in OFFICE else content.decode("utf-8")
    except ValueError:
        return ""
    return text.strip() and text


def orders(text: str) -> str:
    """Why a text is not put before a model, and an answer that rests on it not trained on; empty where it may be."""
    if any(token in text for token in CONTROL_TOKENS):
        return "control tokens in a document"
    return "instructions in a document" if INSTRUCTIONS.search(text) else ""


def fault_of_file(name: str, content: bytes) -> str:
    """Why a file is not what its ending promises; empty where it is."""
    text, kind = _text(name, content), kind_of(name)
    try:
        fits = _READERS[kind](text) if text and kind in _READERS else bool(text)
    except (ValueError, SyntaxError, csv.Error, RecursionError):
        fits = False
    return "" if fits else "file of another type"


def _is_table(text: str, mark: str) -> bool:
    widths = {len(line) for line in csv.reader(io.StringIO(text), delimiter=mark, strict=True) if line}
    return len(widths) == 1 and widths.pop() > 1


class _Tags(HTMLParser):
    """Notes whether it has seen a tag."""

    seen = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen = True


def _is_html(text: str) -> bool:
    reader = _Tags()
    reader.feed(text)
    return reader.seen


def _is_xml(text: str) -> bool:
    """Entities of its own could grow without end while they are read here."""
    return "<!ENTITY" not in text and ElementTree.fromstring(text) is not None


_READERS: dict[str, Any] = {
    "csv": lambda text: _is_table(text, ","), "tsv": lambda text: _is_table(text, "\t"),
    "json": lambda text: json.loads(text) is not None,
    "jsonl": lambda text: all(json.loads(line) is not None for line in text.splitlines() if line.strip()),
    "html": _is_html, "xml": _is_xml, "py": lambda text: bool(ast.parse(text).body),
}  # fmt: skip
