"""Files that programs read and write: uploads for data analysis, results of file generation (P 4.3.5)."""

import ast
import csv
import io
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from posttrain.chat import CONTROL_TOKENS
from posttrain.checks import sandbox
from posttrain.checks.tools import Executor, python
from posttrain.data.rows import content_id
from synth.documents import INSTRUCTIONS

TYPES = ("csv", "tsv", "json", "jsonl", "txt", "html", "py")
"""Of the paper's list those that are text; the others (docx, pdf, pptx, xlsx, xml) need packages in the sandbox."""
MOST_BYTES = 200_000
"""Of an uploaded file; of all that a program leaves behind, together."""

PROGRAM = """\
import json, os, sys, traceback
WORD, MOST, FILES, CODE = json.loads({payload!r})
for name, text in FILES.items():
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
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
            with open(name, encoding="utf-8", newline="") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            continue
        if FILES.get(name) != text:
            found[name] = text
sys.stdout.flush()
if sum(map(len, found.values())) <= MOST:
    sys.__stdout__.write("\\n" + WORD + json.dumps(found) + "\\n")
sys.__stdout__.flush()
os._exit(code)
"""


class Desk:
    """A working folder of one dialog: what was uploaded, and what its programs have written so far."""

    def __init__(self, files: Mapping[str, str]):
        self.uploaded = dict(files)
        self.files = dict(files)

    @property
    def written(self) -> dict[str, str]:
        """The files that the programs made or changed."""
        return {name: text for name, text in self.files.items() if self.uploaded.get(name) != text}

    def executor(self) -> Executor:
        """The tool `python` in this folder."""
        return Executor(python.SCHEMA, self.run)

    def run(self, code: str) -> dict[str, Any]:
        """What a program printed and said of its failure, and the names of the `files` it wrote."""
        if len(code) > python.MOST_CODE:
            raise ValueError(f"the program has {len(code):,} characters; {python.MOST_CODE:,} are taken")
        word = content_id("files of", code, self.files)
        payload = json.dumps([word, MOST_BYTES, self.files, python.shown(code)])
        limits = sandbox.Limits(
            python.LIMITS.seconds, python.LIMITS.memory, python.LIMITS.processes, python.LIMITS.output + 4 * MOST_BYTES
        )
        ran = sandbox.run_python(PROGRAM.format(payload=payload), limits)
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


def _parted(stdout: str, word: str) -> tuple[str, dict[str, str]]:
    """What the program printed, and the files that stand behind the word."""
    printed, found, told = stdout.rpartition(f"\n{word}")
    return (printed, json.loads(told)) if found else (stdout, {})


def uploads(folder: Path) -> dict[str, str]:
    """The files of the known types in a folder by name, without those that are too large or no text."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lstrip(".").lower() in TYPES and path.is_file() and path.stat().st_size <= MOST_BYTES:
            text = path.read_text(encoding="utf-8", errors="replace")
            if text.strip() and "\ufffd" not in text:
                found[path.name] = text
    return found


def orders(text: str) -> str:
    """Why a text is not put before a model, and an answer that rests on it not trained on; empty where it may be."""
    if any(token in text for token in CONTROL_TOKENS):
        return "control tokens in a document"
    return "instructions in a document" if INSTRUCTIONS.search(text) else ""


def fault_of_file(name: str, text: str) -> str:
    """Why a file is not what its ending promises; empty where it is."""
    kind = name.rpartition(".")[2].lower()
    try:
        fits = _READERS[kind](text) if kind in _READERS else True
    except (ValueError, SyntaxError, csv.Error, RecursionError):
        fits = False
    return "" if fits and text.strip() else "file of another type"


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


_READERS: dict[str, Any] = {
    "csv": lambda text: _is_table(text, ","), "tsv": lambda text: _is_table(text, "\t"),
    "json": lambda text: json.loads(text) is not None,
    "jsonl": lambda text: all(json.loads(line) is not None for line in text.splitlines() if line.strip()),
    "html": _is_html, "py": lambda text: bool(ast.parse(text).body),
}  # fmt: skip
