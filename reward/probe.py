"""A few scored conversations that a reward model carries with it: whoever reads it finds out whether he reads it right.

Another template, another BOS, changed weights or a lossy conversion give other ids or other scores.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.data.rows import Pair
from posttrain.engines.loading import Loaded
from posttrain.engines.scoring import TOLERANCE, answer_list, rewards
from posttrain.errors import UserError

FILE = "probe.json"
PROBED = 3
"""Pairs kept: the first, middle and last in order of length."""


def write_probe(folder: Path, loaded: Loaded, pairs: Sequence[Pair]) -> None:
    """Keep a few pairs with the ids and scores that the model as stored gives them now."""
    by_length = sorted(pairs, key=lambda pair: (len(json.dumps(pair.prompt)), pair.id))
    some = {pair.id: pair for pair in (by_length[0], by_length[len(by_length) // 2], by_length[-1])}
    rows: list[dict[str, Any]] = []
    for pair in list(some.values())[:PROBED]:
        item = answer_list(loaded.renderer, pair.prompt, pair.tools, pair.sides)
        rows.append(
            {
                "messages": pair.prompt, "tools": pair.tools, "answers": pair.sides,
                "prompt_ids": item.prompt, "answer_ids": item.answers, "scores": rewards(loaded, [item], 1)[0],
            }
        )  # fmt: skip
    (folder / FILE).write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")


def check_probe(loaded: Loaded, path: str | Path, name: str) -> None:
    """Render and score the probe anew; raise UserError for other ids or scores. Models from elsewhere carry none."""
    file = Path(path) / FILE
    if not file.is_file():
        return
    tolerance = TOLERANCE[loaded.model.dtype]
    for row in json.loads(file.read_text(encoding="utf-8")):
        item = answer_list(loaded.renderer, row["messages"], row["tools"], row["answers"])
        if [item.prompt, item.answers] != [row["prompt_ids"], row["answer_ids"]]:
            raise UserError(
                f"{name} reads other tokens than it was trained on (its tokenizer or chat template has changed); "
                "take the checkpoint as its training wrote it, or train it again"
            )
        for value, expected in zip(rewards(loaded, [item], 1)[0], row["scores"], strict=True):
            if not abs(value - expected) <= tolerance * max(1.0, abs(expected)):
                raise UserError(
                    f"{name} scores a row {value:.4f} that it scored {expected:.4f} when it was trained; its weights "
                    "have changed: take the checkpoint as its training wrote it, or train it again"
                )
