"""Rendering rows with loss masks: tokens a second, against `apply_chat_template(return_assistant_tokens_mask=True)`.

Both get the same conversations, tokenizer and template, in turns, on one core, and must give the same ids and mask.
Ours also proves, row by row, that the prompt is a prefix and that calls read back, and keeps control-token text from
becoming tokens.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from harness import ROOT, markdown, timed

import synth.world as world
from posttrain.chat import Renderer

MODEL = ROOT / "posttrain" / "tiny" / "base"
REPEATS = 3
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


def render_all(render: Callable[[Renderer, Row], Any], renderer: Renderer, some: list[Row]) -> None:
    for row in some:
        render(renderer, row)


def line(kind: str, renderer: Renderer, count: int, seed: int) -> tuple[str, ...]:
    """A line of the table: CPU seconds are the least of several turns."""
    some = list(rows(kind, count, seed))
    tokens = 0
    for row in some:
        made = ours(renderer, row)
        assert made == theirs(renderer, row), row
        tokens += len(made[0])
    # A renderer keeps short texts encoded, so each turn has one that has seen none of these rows.
    fresh = [Renderer.from_pretrained(MODEL) for _ in range(REPEATS)]
    us = min(timed(render_all, ours, new, some)[0] for new in fresh)
    them = min(timed(render_all, theirs, renderer, some)[0] for _ in fresh)
    speeds = (f"{tokens / us:,.0f}", f"{tokens / them:,.0f}", f"**{them / us:.2f}×**")
    return kind, f"{count:,}", f"{tokens / count:,.0f}", *speeds


def section(count: int, seed: int) -> list[str]:
    renderer = Renderer.from_pretrained(MODEL)
    head = ("rows", "n", "tokens a row", "ours, tokens/s", "transformers, tokens/s", "ours is faster by")
    return markdown(head, [line(kind, renderer, count, seed) for kind in ("tool_use", "long_context", "dialogs")])
