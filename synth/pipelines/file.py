"""Prompts of a file (`from: file`); where their capability is one of the world's, only those on its training side."""

from posttrain.data.read import read_rows
from posttrain.data.rows import Prompt
from synth.operators import Item, Work
from synth.pipelines.world import keep_training_side


def make(work: Work) -> None:
    """Every line of this capability; the stage chooses among them."""
    read: list[Prompt] = read_rows(work.input("file"), "prompts", work.capability)
    for prompt in read:
        item = Item(prompt.id, language=prompt.language)
        if prompt.capability != work.capability:  # left to the entry of that name; no reject
            work.tally("read", item.language).lose("other capability")
        else:
            keep_training_side(work, item, prompt)
