"""Draws three numbers a chunk from the stage's seed; each becomes a row."""

import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

from example_numbers_spec import NumbersConfig

from posttrain.data.rows import Row
from posttrain.data.tables import write_table
from posttrain.errors import StoppedByGate, UserError
from posttrain.stages import Job

ROWS_A_CHUNK = 3


def run(job: Job) -> None:
    config: NumbersConfig = job.config
    print(f"drawing {config.chunks} chunks")
    journal = job.journal("numbers")
    order = [f"{number:04d}" for number in range(config.chunks)]
    for done, chunk in enumerate(order, 1):
        if chunk not in journal:
            time.sleep(config.pause)
            journal.append(chunk, [asdict(_row(job.rng(chunk, index).random())) for index in range(ROWS_A_CHUNK)])
            if config.trail:
                with open(config.trail, "a", encoding="utf-8") as trail:
                    trail.write(f"{chunk}\n")
        job.progress(done, config.chunks, "chunks", tokens=ROWS_A_CHUNK)
        job.tokens += ROWS_A_CHUNK
        if done == 2:
            _fail(config.fault, job.folder)
    job.rows["rows"] = write_table(job.folder, "rows", (Row(**record) for record in journal.rows(order)))
    job.summary["chunks"] = config.chunks


def _row(number: float) -> Row:
    answer = {"role": "assistant", "content": f"{number:.6f}"}
    return Row(({"role": "user", "content": "a number"}, answer), capability="numbers", reward=number)


def _fail(fault: str, folder: Path) -> None:
    if fault == "exception":
        raise RuntimeError("the numbers ran out")
    if fault == "user":
        raise UserError("numbers.txt line 3: expected a number, got 'x'; mend the line")
    if fault == "gate":
        raise StoppedByGate("round 1: numbers fell by 3.0 points; the gate says stop")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "full":
        (folder / "large").write_bytes(b"0" * (64 << 20))
