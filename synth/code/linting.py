"""Ruff over Python that a model wrote: syntax, names that are not there, unused variables, style. Nothing is run."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from posttrain.errors import UserError

RULES = "E7,E9,F,B,PLE"
"""Statements, syntax, Pyflakes, bugbear, Pylint's errors. Layout (E1, E2, W, E501) is no fault of a solution."""
NOT_HERE = "B011,F401,E731"
"""`assert False` in tests, imports that are not used, and named lambdas do no harm."""
MOST = 10
"""Findings that are told of one text."""
SECONDS = 120


def findings(texts: Sequence[str]) -> list[list[str]]:
    """For each text its findings as `line 3: F821 Undefined name 'x'`, in order of lines.

    Raises UserError where ruff is not installed.
    """
    if not texts:
        return []
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.py").write_text(text, encoding="utf-8", errors="replace")
        ran = subprocess.run(
            [_ruff(), "check", "--isolated", "--no-cache", "--quiet", "--exit-zero", "--output-format", "json",
             "--target-version", version, "--select", RULES, "--ignore", NOT_HERE, "."],
            cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=True,
        )  # fmt: skip
    found = defaultdict(list)
    for one in json.loads(ran.stdout or "[]"):
        found[int(Path(one["filename"]).stem)].append((one["location"]["row"], one["code"] or "syntax", one["message"]))
    return [
        [f"line {row}: {code} {message}" for row, code, message in sorted(found[number])[:MOST]]
        for number in range(len(texts))
    ]


def _ruff() -> str:
    """The program, of this environment before any other."""
    path = shutil.which("ruff", path=sysconfig.get_path("scripts")) or shutil.which("ruff")
    if path is None:
        raise UserError("the linter of the code pipeline is missing: pip install 'posttrain[code]'")
    return path
