"""Rendering rows with loss masks: tokens a second, against `apply_chat_template(return_assistant_tokens_mask=True)`.

    python benchmarks/rendering.py --rows 400 --write

Both get the same conversations, tokenizer and template, in turns, on one core, and must give the same ids and mask.
Ours also proves, row by row, that the prompt is a prefix and that calls read back, and keeps control-token text from
becoming tokens. With --write the table goes to benchmarks/results/rendering.md.
"""

import argparse
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import synth.world as world
from posttrain.chat import Renderer

ROOT = Path(__file__).parent
MODEL = ROOT.parent / "posttrain" / "tiny" / "base"
RESULTS = ROOT / "results" / "rendering.md"
TURNS = 8
"""Exchanges of a dialog."""
Row = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def rows(kind: str, n: int, seed: int) -> Iterator[Row]:
    """Conversations of the tiny world: calls of one of several tools, needles in long texts, dialogs of many turns."""
    rng = random.Random(f"{kind} {seed}")
    for _ in range(n):
        if kind == "dialogs":
            parts = [world.make("instructions", rng, "train") for _ in range(TURNS)]
            yield [m for part in parts for m in (*part.prompt.messages, part.gold)], []
        else:
            made = world.make(kind, rng, "train")
            yield [*made.prompt.messages, made.gold], list(made.prompt.tools)


def ours(renderer: Renderer, row: Row) -> tuple[list[int], list[int]]:
    rendered = renderer.conversation(*row, train="all")
    return rendered.ids, [int(mask > 0) for mask in rendered.mask]


def theirs(renderer: Renderer, row: Row) -> tuple[list[int], list[int]]:
    messages, tools = row
    made = renderer.tokenizer.apply_chat_template(
        messages, tools=tools or None, return_dict=True, return_assistant_tokens_mask=True
    )
    return made["input_ids"], made["assistant_masks"]


def seconds(render: Callable[[Renderer, Row], Any], renderer: Renderer, some: list[Row]) -> float:
    start = time.process_time()
    for row in some:
        render(renderer, row)
    return time.process_time() - start


def line(kind: str, renderer: Renderer, n: int, seed: int, repeats: int) -> str:
    """A line of the table: CPU seconds are the least of several turns."""
    some = list(rows(kind, n, seed))
    tokens = 0
    for row in some:
        made = ours(renderer, row)
        assert made == theirs(renderer, row), row
        tokens += len(made[0])
    # A renderer keeps short texts encoded, so each turn has one that has seen none of these rows.
    fresh = [Renderer.from_pretrained(MODEL) for _ in range(repeats)]
    pairs = [(seconds(ours, new, some), seconds(theirs, renderer, some)) for new in fresh]
    us, them = (min(side) for side in zip(*pairs, strict=True))
    return f"| {kind} | {n:,} | {tokens / n:,.0f} | {tokens / us:,.0f} | {tokens / them:,.0f} | {them / us:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--date", help="printed with the results, to say when they were measured")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    renderer = Renderer.from_pretrained(MODEL)
    lines = [
        "| rows | n | tokens a row | ours, tokens/s | transformers, tokens/s | ratio |", "|---|---|---|---|---|---|",
        *(line(k, renderer, chosen.rows, chosen.seed, chosen.repeats) for k in ("tool_use", "long_context", "dialogs")),
    ]  # fmt: skip
    where = f"{os.cpu_count()} cores, {platform.machine()}, one of them used; CPU seconds; seed {chosen.seed}"
    text = "\n".join([f"{where}{f'; {chosen.date}' if chosen.date else ''}.", "", *lines])
    print(text)
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"# Rendering with masks\n\n`python benchmarks/rendering.py`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
