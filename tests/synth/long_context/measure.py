"""Rows of 16K to 128K tokens on the standard library's source, and what they took: `python -m tests.….measure FOLDER`.

Answers come from the scripted reader; tokens are those of the tiny tokenizer.
"""

import json
import shutil
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import posttrain
from posttrain.chat import Renderer
from posttrain.data.tables import iter_table
from posttrain.stages import Job
from synth import generate
from synth.generate_spec import SPEC, GenerateConfig
from synth.pipelines.long_context_spec import LENGTHS
from tests.synth.conftest import plain
from tests.synth.long_context.reading import Reader
from tests.synth.long_context.shelf import Shelf
from tests.synth.scripted import Scripted

ENTRY = {
    "from": "long_context", "rows": 16, "documents": "library", "lengths": list(LENGTHS), "turns": 2,
    "kinds": {"qa": 1, "summary": 1, "needles": 1, "repository": 1},
}  # fmt: skip


class World(Reader):
    """Words the questions for needles, too."""

    def __call__(self, text, body):
        if text.startswith("Write a question whose answer is: "):
            keys = [words.split()[0] for words in text.split("The code of ")[1:]]
            return f"What are the codes of {' and '.join(keys)}?"
        return super().__call__(text, body)


def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(folder):
    skipped = shutil.ignore_patterns("__pycache__", "site-packages", "test", "tests", "lib2to3", "idlelib")
    shutil.copytree(sysconfig.get_path("stdlib"), folder / "library", ignore=skipped)
    config = GenerateConfig(prompts={"long_context": ENTRY}, max_new_tokens=600)
    teacher = Scripted(World()).endpoint()
    inputs = {name: plain(value) for name, value in SPEC.wire(config, Shelf(teacher, folder)).items()}
    began = time.monotonic()
    job = Job(config, inputs, folder, 5, 1, "synthesize")
    generate.run(job)
    renderer = Renderer.from_pretrained(Path(posttrain.__file__).parent / "tiny" / "base")
    rows = list(iter_table(folder, "rows"))
    for row in rows:
        tokens = len(renderer.conversation(row.messages).ids)
        assert row.labels["bucket"] / 2 < tokens <= row.labels["bucket"], row.labels
    report = json.loads((folder / "report.json").read_text())["capabilities"]["long_context"]
    print(json.dumps({
        "buckets": Counter(row.labels["bucket"] for row in rows), "kinds": Counter(row.labels["kind"] for row in rows),
        "tokens": sorted(int(row.labels["tokens"]) for row in rows), "seconds": round(time.monotonic() - began, 1),
        "peak": peak(), "positions": report["labels"]["position"]["tenths"], "reasons": report["reasons"],
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
