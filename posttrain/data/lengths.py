"""How long rows are: estimated from their bytes, or counted by a model's tokenizer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posttrain.errors import UserError

BYTES_PER_TOKEN = 4
"""Of the stored JSON, whose braces and keys stand for the tokens that a chat template adds to each message."""
TEXT_COLUMNS = {
    "rows": ("messages", "tools"),
    "pairs": ("prompt", "chosen", "rejected", "tools", "chosen_steps", "rejected_steps"),
    "preferences": ("prompt", "chosen", "rejected", "tools", "chosen_steps", "rejected_steps"),
}
"""The columns of a table that hold its text; those of steps are younger than some tables."""
BATCH_CHARACTERS = 1 << 20
"""Text that is tokenized at once: its encodings take about a hundred times as many bytes."""
BUCKETS = (256, 1024, 4096, 16384, 65536)
"""Limits in tokens between the lengths that a mix is counted by."""
Lengths = Callable[[pa.Table, tuple[str, ...]], np.ndarray]


def estimated(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """About how many tokens each row has, from the bytes of its text columns; at least 1."""
    there = [name for name in columns if name in rows.column_names]
    size = sum(pc.binary_length(rows[name]).to_numpy().astype(np.int64) for name in there)
    return np.maximum(1, size // BYTES_PER_TOKEN)


def counted(source: str) -> Lengths:
    """A function that counts with the tokenizer of a checkpoint's folder or hub name."""
    tokenizer = _tokenizer(source)

    def count(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
        texts = zip(*(rows[name].to_pylist() for name in columns if name in rows.column_names), strict=True)
        lengths: list[int] = []
        for batch in _batches("\n".join(_texts([json.loads(text) for text in row])) for row in texts):
            lengths += [len(found.ids) for found in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        return np.maximum(1, np.array(lengths, dtype=np.int64))

    return count


def _tokenizer(source: str) -> Any:
    from tokenizers import Tokenizer

    file = Path(source) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if Path(source).is_dir() else Tokenizer.from_pretrained(source)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"mix.tokenizer: the tokenizer of {source} cannot be loaded ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    yield batch


def _texts(value: Any) -> Iterator[str]:
    """Every text in messages and tools that a template would print: contents, and calls and schemas as JSON."""
    for item in value:
        if isinstance(item, list):
            yield from _texts(item)
        elif "role" in item:
            yield str(item.get("content") or "")
            yield from (json.dumps(call.get("function"), ensure_ascii=False) for call in item.get("tool_calls") or [])
        else:
            yield json.dumps(item, ensure_ascii=False)


def bucket(tokens: int) -> str:
    """The name of a length's bucket: `256-1,023`."""
    low = 0
    for high in BUCKETS:
        if tokens < high:
            return f"{low:,}-{high - 1:,}"
        low = high
    return f"{low:,} and more"
