"""What answers at once must not load what takes seconds to load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ["torch", "transformers", "trl", "peft", "datasets", "numpy", "pandas", "pyarrow", "scipy"]
CODE = """
import json, sys
from posttrain.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(json.dumps({"code": code or 0, "heavy": [name for name in %r if name in sys.modules]}))
"""


def run_command(*arguments: str, cwd: Path) -> dict[str, object]:
    command = [sys.executable, "-c", CODE % HEAVY, *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.stdout.strip(), result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["recipes"], ["plan", "quickstart"], ["plan", "quickstart", "--json"], ["plan", "llama-3.1-70b"]],
    ids=" ".join,
)
def test_loads_no_tensor_library(arguments: list[str], tmp_path: Path) -> None:
    assert run_command(*arguments, cwd=tmp_path) == {"code": 0, "heavy": []}


def test_status_of_nothing_loads_no_tensor_library(tmp_path: Path) -> None:
    outcome = run_command("status", str(tmp_path / "no-such-run"), cwd=tmp_path)
    assert outcome == {"code": 2, "heavy": []}
