"""Reading and mixing a million rows: seconds and peak memory, against `datasets` on the same files.

Four JSONL files of conversations are read, mixed by weight and epochs, and written; each step is a process of its own,
whose peak memory the kernel tells. The peer loads the same files with `datasets`, takes the same shares, shuffles them
and writes Parquet. Its files have no tools, because their schemas differ and Arrow would merge them.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import QUIET, ROOT, markdown

CAPABILITIES = {"general": 0.5, "code": 0.2, "reasoning": 0.2, "tool_use": 0.1}
"""Capability → its share of the rows on disk."""
PARTS = {
    "general": {"weight": 52.66}, "code": {"weight": 14.89, "epochs": 2},
    "reasoning": {"weight": 21.19}, "tool_use": {"weight": 11.26, "epochs": 3},
}  # fmt: skip
WORDS = [f"word{number}" for number in range(5_000)]
LIMIT_MIB = 1024


def section(rows: int, seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, rows, seed)
        size = sum(path.stat().st_size for path in folder.glob("*-tools.jsonl"))
        found = {step: run_step(step, folder) for step in STEPS}
    head = ("step", "rows", "CPU s", "wall s", "peak MiB")
    table = markdown(head, [
        (SAID[step], f"{of['rows']:,}", f"{of['cpu']:.1f}", f"{of['seconds']:.1f}", f"{of['peak']:,.0f}")
        for step, of in found.items()
    ])  # fmt: skip
    cpu = (found["read"]["cpu"] + found["mix"]["cpu"]) / found["datasets"]["cpu"]
    peak = max(found["read"]["peak"], found["mix"]["peak"])
    holds = "holds" if peak < LIMIT_MIB else "does not hold"
    ratios = f"{cpu:.2f} times the CPU seconds of `datasets`, {peak / found['datasets']['peak']:.2f} times its memory"
    about = f"{rows:,} conversations, {size / 1e9:.2f} GB of JSONL in four files; a process a step."
    return [about, "", *table, "", f"**{ratios}**; the limit of {LIMIT_MIB:,} MiB {holds}."]


def run_step(step: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, step, str(folder)]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(step: str, folder: Path) -> None:
    start = time.perf_counter()
    count = STEPS[step](folder)
    used, peak = time.process_time(), peak_memory()
    print(json.dumps({"rows": count, "seconds": time.perf_counter() - start, "cpu": used, "peak": peak}))


def peak_memory() -> float:
    """Most memory of this process so far, MiB; `getrusage` would count what its parent had when it was forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def write_files(folder: Path, rows: int, seed: int) -> None:
    """For each capability a file with tools, and one without for the peer."""
    for capability, share in CAPABILITIES.items():
        with open(folder / f"{capability}-tools.jsonl", "w") as ours, open(folder / f"{capability}.jsonl", "w") as peer:
            for record in conversations(capability, int(rows * share), seed):
                ours.write(json.dumps(record) + "\n")
                peer.write(json.dumps({"messages": record["messages"]}) + "\n")


def conversations(capability: str, count: int, seed: int) -> Iterator[dict[str, object]]:
    rng = random.Random(f"{capability} {seed}")
    for number in range(count):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(2)]
        messages = [{"role": "user", "content": f"{number} {texts[0]}"}, {"role": "assistant", "content": texts[1]}]
        record: dict[str, object] = {"messages": messages}
        if capability == "tool_use":
            properties = {rng.choice(WORDS): {"type": "string"} for _ in range(3)}
            record["tools"] = [{"name": f"f{number}", "parameters": {"type": "object", "properties": properties}}]
        yield record


def read(folder: Path) -> int:
    from posttrain.data.read import run
    from posttrain.data.read_spec import ReadConfig
    from posttrain.stages import Job

    count = 0
    for capability in CAPABILITIES:
        (folder / capability).mkdir()
        path = folder / f"{capability}-tools.jsonl"
        job = Job(ReadConfig(path=str(path), capability=capability), {"file": str(path)}, folder / capability, 0)
        run(job)
        count += job.rows["rows"]
    return count


def mix(folder: Path) -> int:
    from posttrain.data.mix import run
    from posttrain.data.mix_spec import MixConfig
    from posttrain.stages import Job

    (folder / "mixed").mkdir()
    sources = [folder / capability for capability in CAPABILITIES]
    job = Job(MixConfig.model_validate({"parts": PARTS}), {"rows": sources}, folder / "mixed", 0)
    run(job)
    return job.rows["rows"]


def peer(folder: Path) -> int:
    """What a person writes with `datasets`: shares by hand, an epoch more by concatenating once more."""
    from datasets import concatenate_datasets, load_dataset

    loaded = {
        name: load_dataset(
            "json", data_files=str(folder / f"{name}.jsonl"), split="train", cache_dir=str(folder / "cache")
        )
        for name in CAPABILITIES
    }
    whole = sum(part["weight"] for part in PARTS.values())
    total = min(len(loaded[name]) * part.get("epochs", 1) * whole / part["weight"] for name, part in PARTS.items())
    taken = []
    for name, part in PARTS.items():
        repeated = concatenate_datasets(
            [loaded[name].shuffle(seed=epoch) for epoch in range(int(part.get("epochs", 1)))]
        )
        taken.append(repeated.select(range(int(total * part["weight"] / whole))))
    mixed = concatenate_datasets(taken).shuffle(seed=0)
    mixed.to_parquet(str(folder / "peer.parquet"))
    return len(mixed)


STEPS: dict[str, Callable[[Path], int]] = {"read": read, "mix": mix, "datasets": peer}
SAID = {
    "read": "`read`: checked, hashed, written",
    "mix": "`mix`: shares, order, written",
    "datasets": "`datasets`: loaded, shuffled, written; no tools, no checks, no ids",
}


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]))
