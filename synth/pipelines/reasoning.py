"""Reasoning and mathematics (P 4.3.3): questions, several solutions of each, those kept that reach the answer and whose
steps the teacher finds right; solutions with Python that was run; wrong solutions put right.
"""

import math
from collections import defaultdict

from posttrain.checks.mathematics import equal
from posttrain.checks.tools import SCHEMAS
from posttrain.data.rows import Row
from posttrain.data.shares import largest_remainder
from synth.operators import Item, Work, says, user
from synth.pipelines.reasoning_spec import OVER_ASK
from synth.reasoning.questions import SOURCES
from synth.reasoning.solutions import corrected, solved, verified, with_python


def make(work: Work) -> None:
    """Questions → solutions → those that hold → kept, all of one question together."""
    equal("$1$", ("1",))  # says what to install before anything is asked
    for number, wanted in work.passes():
        parts = largest_remainder(dict(work.config.kinds), math.ceil(OVER_ASK * wanted))
        items = [item for kind, count in parts.items() if count for item in SOURCES[kind](work, number, count)]
        items = solved(work, items)
        right = verified(work, items)
        dialogs = {"corrected": corrected(work, items), "python": with_python(work, items)}
        of_question = defaultdict(list)
        for one in right:
            of_question[one["question"]].append(one)
        of_item = {(form, one.id): one for form, found in dialogs.items() for one in found}
        for item in items:
            own = {form: of_item.get((form, item.id)) for form in dialogs}
            keep(work, item, of_question[item["question"]][: work.config.most], own)


def keep(work: Work, item: Item, right: list[Item], dialogs: dict[str, Item | None]) -> None:
    """The question as a prompt, and all its rows; without any it is dropped."""
    prompt = work.prompt(item, [user(item["question"])], check=item["check"])
    labels = {"kind": item["kind"], "agreement": round(item["share"], 4)}
    labels |= {"skill": item["skill"]} if item["skill"] else {}
    parents = (prompt.id, *item.parents)
    rows: list[Row] = []
    for one in right:
        said = [*prompt.messages, says(one["solution"])]
        lowest = {"lowest_step": round(one["lowest"], 4)} if work.config.step_scorer else {}
        rows.append(work.row(one, said, parents=parents, labels={**labels, **lowest, "form": "steps"}))
    for form, found in dialogs.items():
        if found:
            tools = [SCHEMAS["python"]] if form == "python" else []
            rows.append(work.row(found, found["messages"], tools, parents, {**labels, "form": form}))
    if rows:
        work.keep(item, prompt, rows)
    else:
        work.drop(item, "keep", "no solution holds", item["question"])
