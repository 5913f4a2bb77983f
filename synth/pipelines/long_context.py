"""Long context (P 4.3.4): questions on chunks, hierarchical summaries, needles, and files that a repository lacks.

The teacher reads a chunk, or a summary of each; the row has the whole document among others, the longer the more. A
question is kept when the teacher answers it from its evidence and cannot without, and its evidence stands once in the
row. Where it stands is spread evenly, and told in the report.
"""

from posttrain.chat import Renderer
from posttrain.data.rows import Check, Message, flagged
from synth.documents import Library, fence
from synth.long_context.contexts import fill, joined, scene
from synth.long_context.drawing import FILE_SHARE, Shelf
from synth.long_context.needles import HIDDEN, check_of, hide
from synth.long_context.questions import grounded, items_of, position_of, proven
from synth.long_context.repository import missing_file, surroundings
from synth.long_context.summaries import overview, summaries
from synth.operators import Item, Work, ask, in_language, parse, says, sift, user
from synth.world import faithful
from synth.world.languages import ENGLISH_NAMES
from synth.world.long_context import gold

FULL = (0.7, 0.92)
"""How much of its greatest length a row's documents have, drawn evenly; the dialog comes on top."""


def make(work: Work) -> None:
    """Drawn documents and places → dialogs of each kind → measured by the renderer → kept."""
    renderer = Renderer.from_pretrained(str(work.input("tokenizer")))
    shelf = Shelf(work, Library(work.input("documents"), lambda text: len(renderer.ids(text))))
    for number, wanted in work.passes():
        items = shelf.draw(number, wanted)
        for kind, dialogs in KINDS.items():
            own = [item for item in items if item["kind"] == kind]
            done = measured(work, renderer, dialogs(work, shelf, own)) if own else []
            for item in done:
                keep(work, shelf.library, item)


def budget(work: Work, item: Item) -> int:
    """Tokens of a row's documents."""
    return int(item["length"] * work.rng("full", item.id).uniform(*FULL))


def questions(work: Work, shelf: Shelf, items: list[Item]) -> list[Item]:
    """Questions on a chunk, those that follow from its text alone, as a dialog on the whole document."""
    ready = []
    for item in items:
        rng, chunk = work.rng("scene", item.id), shelf.chunk_of(item)
        found = scene(rng, shelf.library, item["title"], budget(work, item), chunk, item["position"])
        ready.append(item.plus(
            context=found.text, titles=[part.title for part in found.parts], document=found.chunk,
            count=rng.randint(1, work.config.turns), language=ENGLISH_NAMES[item.language], fence=fence(found.chunk),
        ))  # fmt: skip
    ready = parse(work, ask(work, ready, "long_context/questions", into="said"), items_of, of="said", into="many")
    single = [one for item in ready for one in item.split("qa", item["many"][: item["count"]])]
    single = sift(work, single, grounded, "evidence")
    good = proven(work, single, open_book=True)
    return [
        item.plus(
            messages=dialog(item["context"], [(one["question"], one["qa"]["answer"]) for one in own]),
            check=Check("needle", {"needles": [own[0]["qa"]["key"]]}) if item.language != "th" else None,
            position=position_of(own[0]["qa"]["evidence"], item["context"]),
        )
        for item in ready if (own := [one for one in good if one["number"] == item["number"]])
    ]  # fmt: skip


def summary(work: Work, shelf: Shelf, items: list[Item]) -> list[Item]:
    """A document's summary by way of its chunks', and questions on the whole."""
    ready = []
    for item in items:
        found = scene(
            work.rng("scene", item.id), shelf.library, item["title"], budget(work, item), shelf.chunk_of(item),
            item["position"],
        )  # fmt: skip
        ready.append(item.plus(
            context=found.text, titles=[part.title for part in found.parts], main=found.main.text,
            language=ENGLISH_NAMES[item.language], position=None,
        ))  # fmt: skip
    ready = in_language(work, ask(work, ready, "long_context/request_summary", into="request"), "request")
    names = sift(work, ready, lambda item: "" if item["title"] in item["request"] else "title not named", "request")
    done = summaries(work, shelf, names)
    asked = overview(work, done)
    return [
        item.plus(
            messages=dialog(item["context"], [(item["request"], item["summary"]), *asked.get(item.id, ())]), check=None
        )
        for item in done
    ]


def needles(work: Work, shelf: Shelf, items: list[Item]) -> list[Item]:
    """Facts hidden in documents that are there to distract; the teacher words the question, the answer is known."""
    ready = []
    for item in items:
        rng = work.rng("scene", item.id)
        parts = fill(rng, shelf.library, budget(work, item), item["title"], set())
        positions = [item["position"], *(rng.random() for _ in range(HIDDEN - 1))]
        context, spec = hide(rng, joined(parts), positions)
        answer = gold(spec)["content"]
        found = position_of(answer.split(". ")[0], context)
        titles = [part.title for part in parts]
        ready.append(item.plus(context=context, titles=titles, spec=spec, answer=answer, position=found))
    done = ask(work, ready, "long_context/new_prompt", into="text")
    done = sift(work, done, lambda item: "" if faithful(item["spec"], item["text"]) else "unfaithful", "check", "text")
    return [
        item.plus(messages=dialog(item["context"], [(item["text"], item["answer"])]), check=check_of(item["spec"]))
        for item in done
    ]


def repository(work: Work, shelf: Shelf, items: list[Item]) -> list[Item]:
    """Who needs a missing file, and what stood in it. Both are known: no teacher is asked."""
    ready = []
    for item in items:
        room = budget(work, item) - item["length"] // FILE_SHARE
        found = surroundings(
            work.rng("scene", item.id), shelf.library, shelf.imports, item["title"], room, work.config.importers
        )
        turns, check = missing_file(shelf.library, shelf.imports, item["title"], [part.title for part in found])
        context, first = joined(found), check.args["needles"][:1]
        ready.append(item.plus(
            context=context, titles=[part.title for part in found], messages=dialog(context, turns), check=check,
            needed=len(check.args["needles"]), position=position_of(f'"{first[0]}"', context) if first else None,
        ))  # fmt: skip

    def test(item: Item) -> str:
        return "" if item["needed"] >= work.config.importers else "its importers do not fit"

    return sift(work, ready, test, "importers", "title")


KINDS = {"qa": questions, "summary": summary, "needles": needles, "repository": repository}


def dialog(context: str, turns: list[tuple[str, str]]) -> list[Message]:
    """The documents with the first question below them, and all that follows; every answer is to be trained."""
    (first, answer), *more = turns
    spoken = [(f"{context}\n\n{first}", answer), *more]
    messages = [message for question, reply in spoken for message in (user(question), says(reply))]
    return [*flagged(messages[:-1]), messages[-1]]


def measured(work: Work, renderer: Renderer, items: list[Item]) -> list[Item]:
    """With `tokens`, those whose row has more than half of its greatest length and no more than that."""
    counted = [item.plus(tokens=len(renderer.conversation(item["messages"]).ids)) for item in items]

    def test(item: Item) -> str:
        if item["tokens"] > item["length"]:
            return "longer than its bucket"
        return "too little text for its bucket" if item["tokens"] * 2 <= item["length"] else ""

    return sift(work, counted, test, "length", "title")


def keep(work: Work, library: Library, item: Item) -> None:
    """The dialog, its documents as parents, and where it is wanted its first question as a prompt."""
    parents = [work.document(library.text(title), title, item.language) for title in item["titles"]]
    labels = {"kind": item["kind"], "bucket": item["length"], "tokens": float(item["tokens"])}
    labels |= {"position": round(item["position"], 4)} if item["position"] is not None else {}
    row = work.row(item, item["messages"], parents=parents, labels=labels)
    sampled = work.config.sampled and item["check"]
    prompt = work.prompt(item, item["messages"][:1], check=item["check"]) if sampled else None
    work.keep(item, prompt, [row])
