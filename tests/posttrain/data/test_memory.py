"""Reading and mixing take memory for some rows at a time, not for the file: peaks of a process, told by the kernel."""

import json
import subprocess
import sys
from pathlib import Path

ROWS, ANSWER_BYTES, MOST_MIB = 40_000, 12_000, 350
CHILD = """
import resource, sys
from pathlib import Path
from posttrain.data import mix, read
from posttrain.data.mix_spec import MixConfig
from posttrain.data.read_spec import ReadConfig
from posttrain.stages import Job

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, before = Path(sys.argv[1]), peak()
job = Job(ReadConfig(path="x"), {"file": str(folder / "mine.jsonl")}, folder / "read", 0)
read.run(job)
after_read = peak()
parts = {"even": {"epochs": 0.5}, "odd": {"epochs": 1.5}}
mixed = Job(MixConfig(parts=parts), {"rows": [folder / "read"]}, folder / "mix", 0)
mix.run(mixed)
print(job.rows["rows"], mixed.rows["rows"], after_read - before, peak() - before)
"""


def test_half_a_gigabyte_of_rows_passes_through_less_memory(tmp_path: Path) -> None:
    """A Python process that held the 480 MB of text would need several times that."""
    for name in ("read", "mix"):
        (tmp_path / name).mkdir()
    with open(tmp_path / "mine.jsonl", "w") as handle:
        for number in range(ROWS):
            answer = f"{number} " * (ANSWER_BYTES // len(f"{number} "))
            messages = [{"role": "user", "content": str(number)}, {"role": "assistant", "content": answer}]
            handle.write(json.dumps({"messages": messages, "capability": "odd" if number % 2 else "even"}) + "\n")
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=True, capture_output=True, text=True)
    read, mixed, reading, mixing = map(int, done.stdout.split())
    assert (read, mixed) == (ROWS, ROWS // 4 + ROWS * 3 // 4)
    assert reading < MOST_MIB
    assert mixing < MOST_MIB
