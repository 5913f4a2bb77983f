"""SFT on the same rows and tiny model, against TRL's own SFTTrainer:

    python -m benchmarks.sft [--rows 200]

TRL at its defaults (padded micro-batches of 8 as they come), at its best setting here (packing), and ours, one after
the other in alternation, each in a process of its own with one thread. Trained tokens a second of processor time,
start-up and loading left out; the median of the repetitions.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 8
SEED = 5
WAYS = ("trl", "trl packed", "ours", "ours packed")
PACK = 1024
TINY = Path(__file__).parent.parent / "posttrain" / "tiny" / "base"


def examples(count: int) -> list[dict[str, Any]]:
    """Rows with log-normal lengths (median 150, 16 to 1,024), the last fifth of each trained."""
    draw = random.Random(SEED)
    found = []
    for _ in range(count):
        length = min(1024, max(16, round(draw.lognormvariate(5.0, 0.8))))
        ids = [draw.randrange(300, 900) for _ in range(length)]
        first = length - max(2, length // 5)
        found.append({"id": str(len(found)), "input_ids": ids, "labels": [-100] * first + ids[first:]})
    return found


def measure(way: str, count: int) -> float:
    """Trained tokens a second of processor time."""
    rows = examples(count)
    trained = sum(label >= 0 for row in rows for label in row["labels"])
    with tempfile.TemporaryDirectory() as folder:
        train = _ours(rows, PACK if "packed" in way else 0, folder) if "ours" in way else _trl(rows, way, folder)
        began = time.process_time()
        train()
        return trained / (time.process_time() - began)


def _ours(rows: list[dict[str, Any]], packing: int, folder: str) -> Any:
    from posttrain.machine import Machine
    from posttrain.stages import Job
    from posttrain.train import sft, trainer
    from posttrain.train.sft_spec import SftConfig

    config = SftConfig(batch_size=BATCH, packing=packing)
    job = Job(config, {}, Path(folder), SEED, name="sft", machine=Machine(device="cpu", threads=1))
    built = sft.row_trainer(job, trainer.load_policy(job, TINY), rows)
    return lambda: trainer.train(job, built, [len(row["input_ids"]) for row in rows])


def _trl(rows: list[dict[str, Any]], way: str, folder: str) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer, pack_dataset

    data = Dataset.from_list([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
    packed = "packed" in way
    if packed:
        data = pack_dataset(data, PACK, "bfd")
    settings = SFTConfig(
        folder, per_device_train_batch_size=1 if packed else BATCH, num_train_epochs=1, use_cpu=True, report_to="none",
        learning_rate=1e-5, logging_steps=1, max_length=None, save_strategy="no", disable_tqdm=True, bf16=False,
        gradient_checkpointing=False, padding_free=packed, seed=SEED, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return SFTTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer).train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.rows)))
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    for _ in range(options.repeat):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.sft", "--way", way, "--rows", str(options.rows)]
            out = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True).stdout
            found[way].append(float(out.splitlines()[-1]))
    middle = {way: statistics.median(values) for way, values in found.items()}
    print("| way | trained tokens / s of processor time | of TRL's defaults | of TRL packed |\n|---|---|---|---|")
    for way, value in middle.items():
        print(f"| {way} | {value:,.0f} | {value / middle['trl']:.2f} | {value / middle['trl packed']:.2f} |")


if __name__ == "__main__":
    main()
