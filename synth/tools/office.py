"""Files of office programs (docx, xlsx, pptx, pdf): their text, read in the sandbox by the packages that programs of a
dialog have there too. None of them is ever opened outside it."""

import base64
import json
from functools import cache

from posttrain.checks import sandbox
from posttrain.checks.tools import python
from posttrain.checks.walls import PACKAGES, installed
from posttrain.errors import UserError

OFFICE = {"docx": "docx", "xlsx": "openpyxl", "pptx": "pptx", "pdf": "pypdf"}
"""Type → the module that reads it."""
NAMES = "openpyxl, docx (python-docx), pptx (python-pptx) and pypdf"
NEEDED = (*OFFICE.values(), "et_xmlfile", "lxml", "PIL", "xlsxwriter", "typing_extensions")
"""These modules, and what they import."""
BESIDE = "pillow.libs"
"""Where wheels of Pillow keep what it is linked to; not everywhere there."""
MOST_TEXT = 20_000
"""Characters of a file that are read."""
LINE = "import sys; sys.path.append({packages!r})\n"

READER = """\
import base64, io, json
kind, data, most = json.loads({payload!r})
data = io.BytesIO(base64.b64decode(data))
def docx():
    import docx
    document = docx.Document(data)
    yield from (paragraph.text for paragraph in document.paragraphs)
    for table in document.tables:
        yield from ("\\t".join(cell.text for cell in row.cells) for row in table.rows)
def xlsx():
    import openpyxl
    for sheet in openpyxl.load_workbook(data, read_only=True):
        yield f"[{{sheet.title}}]"
        for row in sheet.iter_rows(values_only=True):
            yield "\\t".join("" if value is None else str(value) for value in row)
def pptx():
    import pptx
    for slide in pptx.Presentation(data).slides:
        yield from (shape.text_frame.text for shape in slide.shapes if shape.has_text_frame)
def pdf():
    import pypdf
    yield from (page.extract_text() for page in pypdf.PdfReader(data).pages)
held, size = [], 0
for line in globals()[kind]():
    held.append(line)
    size += len(line) + 1
    if size > most:
        break
print(json.dumps("\\n".join(held)[:most]))
"""


@cache
def packages() -> tuple[str, ...]:
    """What programs in the sandbox are given. Raises UserError where it is not installed, or cannot be imported by the
    sandbox's Python."""
    try:
        installed(NEEDED)
    except UserError as error:
        told = "files of types docx, xlsx, pptx and pdf need packages: pip install 'posttrain[files]'"
        raise UserError(f"{told} ({error})") from error
    try:
        installed([BESIDE])
        found = (*NEEDED, BESIDE)
    except UserError:
        found = NEEDED
    names = ", ".join(OFFICE.values())
    ran = sandbox.run_python(f"{LINE.format(packages=PACKAGES)}import {names}", python.LIMITS, found)
    if ran.ended != "exit" or ran.code:
        said = " ".join(ran.stderr.split())[-200:] or ran.ended
        raise UserError(
            f"the sandbox's Python cannot import {names} ({said}); let it be of the version that they were "
            "installed for, or leave out files of types docx, xlsx, pptx and pdf"
        )
    return found


def text_of(kind: str, content: bytes) -> str:
    """The beginning of the text of a file of a type in OFFICE. Raises ValueError for one that is no such file."""
    payload = json.dumps([kind, base64.b64encode(content).decode(), MOST_TEXT])
    limits = sandbox.Limits(python.LIMITS.seconds, python.LIMITS.memory, python.LIMITS.processes, 8 * MOST_TEXT)
    program = LINE.format(packages=PACKAGES) + READER.format(payload=payload)
    ran = sandbox.run_python(program, limits, packages())
    if ran.ended != "exit" or ran.code:
        raise ValueError(f"no {kind} file")
    return str(json.loads(ran.stdout))
