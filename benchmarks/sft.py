"""SFT against TRL's own SFTTrainer: the same rows, tiny base model and step, trained tokens a second.

    python benchmarks/sft.py --write

TRL at its defaults (padded micro-batches of 8 as they come), at its best setting here (packing), and ours padded and
packed: in turn, each in a process of its own with one thread. Processor time of `train()` alone, without start-up and
loading.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import QUIET, ROOT, markdown, parser, ratio, report, timed, turns

BATCH = 8
PACK = 1024
PACKAGES = ("trl", "transformers", "torch")
WAYS = ("trl", "trl packed", "ours", "ours packed")
TINY = ROOT / "posttrain" / "tiny" / "base"


def examples(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows with log-normal lengths (median 150, 16 to 1,024), the last fifth of each trained."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        length = min(1024, max(16, round(draw.lognormvariate(5.0, 0.8))))
        ids = [draw.randrange(300, 900) for _ in range(length)]
        first = length - max(2, length // 5)
        found.append({"id": str(number), "input_ids": ids, "labels": [-100] * first + ids[first:]})
    return found


def trained(rows: list[dict[str, Any]]) -> int:
    return sum(label >= 0 for row in rows for label in row["labels"])


def measure(way: str, count: int, seed: int) -> float:
    """Processor seconds of one epoch."""
    rows = examples(count, seed)
    with tempfile.TemporaryDirectory() as folder:
        make = _ours if "ours" in way else _trl
        return timed(make(rows, PACK if "packed" in way else 0, folder, seed))[0]


def _ours(rows: list[dict[str, Any]], packing: int, folder: str, seed: int) -> Any:
    from posttrain.machine import Machine
    from posttrain.stages import Job
    from posttrain.train import sft, trainer
    from posttrain.train.sft_spec import SftConfig

    config = SftConfig(batch_size=BATCH, packing=packing)
    job = Job(config, {}, Path(folder), seed, name="sft", machine=Machine(device="cpu", threads=1))
    built = sft.row_trainer(job, trainer.load_policy(job, TINY), rows)
    return lambda: trainer.train(job, built, [len(row["input_ids"]) for row in rows])


def _trl(rows: list[dict[str, Any]], packing: int, folder: str, seed: int) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer, pack_dataset

    data = Dataset.from_list([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
    if packing:
        data = pack_dataset(data, packing, "bfd")
    settings = SFTConfig(
        folder, per_device_train_batch_size=1 if packing else BATCH, num_train_epochs=1, use_cpu=True, report_to="none",
        learning_rate=1e-5, logging_steps=1, max_length=None, save_strategy="no", disable_tqdm=True, bf16=False,
        gradient_checkpointing=False, padding_free=bool(packing), seed=seed,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return SFTTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer).train


def seconds(way: str, count: int, seed: int) -> float:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--rows", str(count), "--seed", str(seed)]
    out = subprocess.run(command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, check=True, text=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def main() -> None:
    arguments = parser(__doc__, rows=120, repetitions=3, seed=5)
    arguments.add_argument("--way", choices=WAYS, help="measure this one alone, here")
    options = arguments.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.rows, options.seed)))
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _, order in turns(WAYS, options.repetitions):
        for way in order:
            found[way].append(seconds(way, options.rows, options.seed))
    tokens = trained(examples(options.rows, options.seed))
    rows = [
        (way, f"{tokens / statistics.median(took):,.0f}", ratio(took, found["trl"]), ratio(took, found["trl packed"]))
        for way, took in found.items()
    ]
    head = ("", "trained tokens / s of processor time", "against TRL's defaults", "against TRL packed")
    notes = [
        "",
        "Ours pads rows of similar length within a global batch, in the micro-batches that cost least, and sends only "
        "positions before trained tokens through the output layer. On a CPU packing costs, because its mask is dense.",
    ]
    about = f"{options.rows} rows of log-normal length (median 150, 16 to 1,024 tokens), the shipped tiny base model"
    report("SFT against TRL's own trainer", [*markdown(head, rows), *notes], options, about, *PACKAGES)


if __name__ == "__main__":
    main()
