"""Small rows, pairs and jobs for the training tests."""

import json
import shutil
from pathlib import Path
from typing import Any

from posttrain.data.rows import Pair, Row
from posttrain.data.tables import write_table
from posttrain.machine import Machine
from posttrain.stages import Job

WORDS = "the cat sat on a mat and looked at birds that sang in old trees near water".split()


def sentence(start: int, words: int) -> str:
    return " ".join(WORDS[(start * 7 + i * (start + 1)) % len(WORDS)] for i in range(words))


def make_rows(n: int) -> list[Row]:
    rows = []
    for i in range(n):
        question = {"role": "user", "content": f"Say {i}: {sentence(i, 3 + i % 9)}"}
        rows.append(Row((question, {"role": "assistant", "content": sentence(i + 1, 2 + i % 4)}), capability="general"))
    return rows


def make_pairs(n: int) -> list[Pair]:
    """The chosen answer is always `yes`, the rejected one `no`, so that a few steps can learn it."""
    return [
        Pair(
            ({"role": "user", "content": f"Ask {i}: {sentence(i, 3 + i % 9)}"},),
            {"role": "assistant", "content": "yes yes " + sentence(i, 1 + i % 3)},
            {"role": "assistant", "content": "no no no " + sentence(i, 1 + i % 2)},
            capability=("tool_use", "general")[i % 2], prompt_id=f"prompt-{i}",
        )
        for i in range(n)
    ]  # fmt: skip


def folder_with(path: Path, table: str, rows: list[Any]) -> Path:
    path.mkdir(parents=True)
    write_table(path, table, rows)
    return path


def make_job(folder: Path, config: Any, inputs: dict[str, Any], **more: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    machine = more.pop("machine", Machine(device="cpu", threads=1))
    return Job(config=config, inputs=inputs, folder=folder, seed=more.pop("seed", 17), machine=machine, **more)


def bare_model(source: Path, folder: Path) -> Path:
    """A copy of a tiny model as a base model comes: no chat template or padding token, and it ends texts, not turns."""
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["pad_token"]
    path.write_text(json.dumps(config | {"eos_token": "<|end_of_text|>"}), encoding="utf-8")
    end = next(
        token["id"]
        for token in json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        if token["content"] == "<|end_of_text|>"
    )
    settings = {"do_sample": True, "temperature": 0.6, "eos_token_id": end}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
