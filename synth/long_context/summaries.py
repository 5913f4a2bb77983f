"""A document's summary by way of its chunks' summaries (P 4.3.4), and questions that rest on several of them."""

import re
from collections import defaultdict
from collections.abc import Sequence

from posttrain.checks.verifiers import occurs
from synth.documents import fence
from synth.long_context.contexts import cut
from synth.long_context.drawing import Shelf
from synth.long_context.questions import copied, items_of, keyed, proven
from synth.operators import Item, Work, ask, in_language, parse, sift

MOST_LEVELS = 4
"""Of summaries of summaries."""


def summaries(work: Work, shelf: Shelf, items: Sequence[Item]) -> list[Item]:
    """Items with the chunks' summaries as `parts` and the whole's as `summary`. One that lacks a part is dropped."""
    items = [item.plus(chunks=cut(item["main"], shelf.chunk_of(item), shelf.library.count)) for item in items]
    single = [one for item in items for one in item.split("document", item["chunks"])]
    single = [one.plus(fence=fence(one["document"])) for one in single]
    single = ask(work, single, "long_context/summarize", into="part")
    single = in_language(work, single, "part", step="summarize: language")
    single = sift(
        work,
        single,
        lambda one: "copied" if copied(one["part"], one["document"]) else "",
        "summarize: own words",
        "part",
    )
    found = _together(single, "part")
    whole = [item.plus(parts=found.get(str(item["number"]), [])) for item in items]
    whole = sift(work, whole, _lacks_a_part, "summarize: whole")
    return _merged(work, shelf, [item.plus(level=item["parts"]) for item in whole])


def _lacks_a_part(item: Item) -> str:
    return "" if len(item["parts"]) == len(item["chunks"]) else "a part is missing"


def _merged(work: Work, shelf: Shelf, items: Sequence[Item]) -> list[Item]:
    """Summaries of as many as one request holds, level by level, until each item has one: its `summary`."""
    for number in range(MOST_LEVELS):
        many = [item for item in items if len(item["level"]) > 1]
        if not many:
            break
        groups = [
            item.plus(parts=group, fence=fence("".join(group)), place=[item["number"], place])
            for item in many
            for place, group in enumerate(_groups(item["level"], shelf))
        ]
        groups = ask(work, groups, "long_context/merge", into="merged", step=f"merge {number + 1}")
        groups = in_language(work, groups, "merged", step=f"merge {number + 1}: language")
        found = _together(groups, "merged")
        items = [
            item.plus(level=found.get(str(item["number"]), [])) if len(item["level"]) > 1 else item for item in items
        ]
    done = sift(work, items, lambda item: "" if len(item["level"]) == 1 else "not merged into one", "merge")
    return [item.plus(summary=item["level"][0]) for item in done]


def _groups(parts: Sequence[str], shelf: Shelf) -> list[list[str]]:
    """Neighbours of together at most a chunk's tokens, but two at least."""
    groups, size = [[parts[0]]], shelf.library.count(parts[0])
    for part in parts[1:]:
        tokens = shelf.library.count(part)
        if len(groups[-1]) > 1 and size + tokens > shelf.config.chunk:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += tokens
    return groups


def overview(work: Work, items: Sequence[Item]) -> dict[str, list[tuple[str, str]]]:
    """Item id → questions on the whole with their answers, of documents with several parts."""
    ready = []
    for item in items:
        if len(item["parts"]) > 1:
            count = work.rng("overview", item.id).randint(1, work.config.turns)
            ready.append(item.plus(count=count, fence=fence("".join(item["parts"]))))
    ready = ask(work, ready, "long_context/overview_questions", into="said")
    ready = parse(work, ready, items_of, of="said", into="many", step="overview: parse")
    single = [one.plus(whole=item.id) for item in ready for one in item.split("qa", item["many"][: item["count"]])]
    single = proven(work, sift(work, single, _rests_on_parts, "overview: evidence"), open_book=False)
    found = defaultdict(list)
    for one in single:
        found[one["whole"]].append((one["question"], one["qa"]["answer"]))
    return found


def _rests_on_parts(item: Item) -> str:
    """Why a question does not rest on two parts at least, one of which says its key."""
    named = {int(number) for number in re.findall(r"\d{1,4}", item["qa"]["evidence"])}
    if len(named) < 2 or not named <= set(range(1, len(item["parts"]) + 1)):
        return "does not rest on several parts"
    told = any(occurs(item["parts"][number - 1], item["qa"]["key"]) for number in named)
    return keyed(item) or ("" if told else "key is not in the evidence")


def _together(items: Sequence[Item], name: str) -> dict[str, list[str]]:
    """The values of items of one number, in their order."""
    found = defaultdict(list)
    for item in items:
        found[str(item["number"])].append(item[name])
    return found
