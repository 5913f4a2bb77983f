"""Old refusals written anew (P 5.4): by the guideline of tone, or answered where the request was harmless.

What the request calls for, what the new answer does and its tone are graded as those of `from: safety` are. The new
and the old answer make a pair where they have little in common.
"""

import math
from collections.abc import Sequence
from itertools import islice

from posttrain.checks.phrases import REFUSALS, pattern, plain
from posttrain.data.read import read_rows
from posttrain.data.rows import Row
from synth.documents import fence
from synth.operators import Item, Work, revise, says, sift, told
from synth.pipelines.refusals_spec import OVER_ASK
from synth.safety.answers import about, fitting, guideline, labelled, likeness
from synth.world.languages import ENGLISH_NAMES

WITHIN = 200
"""Characters from an answer's beginning in which a refusal is looked for: later it is quoted or hypothetical."""


def make(work: Work) -> None:
    """Dialogs in seeded order → those that decline → labelled → written anew → graded → kept."""
    rows: list[Row] = read_rows(work.input("dialogs"), "auto", work.capability)
    order = iter(work.rng("order").sample(rows, len(rows)))
    for _, wanted in work.passes():
        items = declined(work, list(islice(order, math.ceil(OVER_ASK * wanted))))
        items = [item.plus(expect=item["label"]) for item in labelled(work, items)]
        items = [item.plus(guideline=guideline(work, item)) for item in items]
        items = [item.plus(said=item["old"]["content"], fence=fence(item["dialog"])) for item in items]
        items = revise(work, items, "safety/rewrite", of="said", into="better", step="rewrite")
        items = fitting(work, [item.plus(answer=says(item["better"])) for item in items], work.config.least)
        for item in items:
            keep(work, item)


def declined(work: Work, rows: Sequence[Row]) -> list[Item]:
    """The dialogs whose last answer declines, by the phrases of eight languages."""
    items = []
    for row in rows:
        messages, old = list(row.messages[:-1]), row.messages[-1]
        text = f"{told([one for one in messages if one.get('content')])}\n\nassistant: {old.get('content') or ''}"
        parent = work.document(text, row.id, row.language, row.source)
        values = {
            "dialog": text, "conversation": text.rpartition("\n\nassistant: ")[0], "messages": messages, "old": old,
            "language": ENGLISH_NAMES.get(row.language, row.language), **about(""),
        }  # fmt: skip
        items.append(work.item(values, row.language, [parent]))

    def test(item: Item) -> str:
        opening = plain(str(item["old"].get("content") or "")[:WITHIN])
        return "" if pattern(REFUSALS).search(opening) else "does not decline"

    return sift(work, items, test, "old answer", "dialog")


def keep(work: Work, item: Item) -> None:
    prompt = work.prompt(item, item["messages"])
    row = work.row(item, [*prompt.messages, item["answer"]], labels={"expect": item["expect"]})
    unlike = likeness(item["answer"], item["old"]) <= work.config.most_like
    work.keep(item, None, [row], [work.pair(item, prompt, item["answer"], item["old"])] if unlike else [])
