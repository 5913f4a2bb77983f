"""Questions on a text as a teacher writes them, and whether each follows from its evidence and from nothing else."""

import re
from collections.abc import Sequence
from typing import Any

from posttrain.checks.verifiers import occurs
from synth.operators import Item, Unreadable, Work, ask, in_language, sift

FIELDS = ("question", "answer", "key", "evidence")
BLOCK = re.compile(r"<item>(.*?)</item>", re.DOTALL)
LEAST_EVIDENCE = 16
"""Characters of a quotation; fewer could stand anywhere."""
COPIED_WORDS = 30
"""A summary that has so many words in a row of its text is a copy."""


def items_of(text: str) -> list[dict[str, str]]:
    """The `<item>`s of an answer, each with all of FIELDS. Raises Unreadable where one lacks any."""
    found = []
    for block in BLOCK.findall(text):
        sections = {name: re.findall(rf"<{name}>(.*?)</{name}>", block, re.DOTALL) for name in FIELDS}
        if any(len(values) != 1 or not values[0].strip() for values in sections.values()):
            raise Unreadable("item without its parts")
        found.append({name: values[0].strip() for name, values in sections.items()})
    if not found:
        raise Unreadable("no <item>")
    return found


def position_of(evidence: str, text: str) -> float | None:
    """Where a quotation stands in a text, 0 to 1; None where it does not, or at several places. Blanks aside."""
    sought = r"\s+".join(map(re.escape, evidence.split()))
    found = [match.start() for match in re.finditer(sought, text)]
    return found[0] / max(1, len(text)) if len(found) == 1 else None


def grounded(item: Item) -> str:
    """Why an item's `qa` does not rest on its text, if so: its evidence must be quoted from the `document`, stand once
    in the `context`, and hold the key; so must the answer, and the question must not give it away."""
    qa: dict[str, Any] = item["qa"]
    if position_of(qa["evidence"], item["document"]) is None:
        return "evidence is not in the text"
    if position_of(qa["evidence"], item["context"]) is None:
        return "evidence stands elsewhere too"
    if len(qa["evidence"]) < LEAST_EVIDENCE:
        return "evidence is too short"
    return keyed(item) or ("" if occurs(qa["evidence"], qa["key"]) else "key is not in the evidence")


def keyed(item: Item) -> str:
    """Why the key of an item's `qa` cannot stand for its answer, if so."""
    qa: dict[str, Any] = item["qa"]
    if occurs(qa["question"], qa["key"]):
        return "question tells its answer"
    return "" if occurs(qa["answer"], qa["key"]) else "key is not in the answer"


def copied(summary: str, text: str) -> bool:
    """Whether a summary has COPIED_WORDS words in a row as they stand in its text."""
    whole, own = " ".join(text.split()), summary.split()
    return any(
        " ".join(own[at : at + COPIED_WORDS]) in whole for at in range(max(1, len(own) - COPIED_WORDS + 1))
        if len(own) >= COPIED_WORDS
    )  # fmt: skip


def proven(work: Work, items: Sequence[Item], open_book: bool) -> list[Item]:
    """The items whose `question` (of `qa`) is in their language, that the teacher answers with `open_book` from the
    `document`, and that it does not answer without: then the answer was known, or could be guessed."""
    step = "questions" if open_book else "overview"
    ready = [item.plus(question=item["qa"]["question"], answer=item["qa"]["answer"]) for item in items]
    ready = in_language(work, ready, "question", f"{step}: question language")
    ready = in_language(work, ready, "answer", f"{step}: answer language")
    if open_book:
        ready = ask(work, ready, "long_context/open_book", into="told", temperature=0.0)
        ready = sift(work, ready, lambda item: "" if _tells(item, "told") else "not in its evidence", "open book: key")
    ready = ask(work, ready, "long_context/closed_book", into="guessed", temperature=0.0, step=f"{step}: closed book")
    return sift(
        work, ready, lambda item: "answered without its text" if _tells(item, "guessed") else "", f"{step}: unknown"
    )


def _tells(item: Item, name: str) -> bool:
    return occurs(item[name], item["qa"]["key"])
