"""Code (P 4.3.1): problems solved until their tests pass, translations that print the same, explanations that code can
be written from.

All that a teacher writes is run in the sandbox or parsed before it is kept; what failed first and was corrected by the
teacher itself is kept with its corrections, and counted.
"""

import math
from typing import Any

from posttrain.data.rows import Check
from posttrain.data.shares import largest_remainder
from synth.code.explanation import explained
from synth.code.feedback import corrected, dialog, solved
from synth.code.languages import LANGUAGES
from synth.code.snippets import Snippet, Sources
from synth.code.toolchains import lacking, ready
from synth.code.translation import translated
from synth.documents import fence
from synth.operators import Item, Work, ask, different, in_language, parse, says, sift, tagged, user
from synth.pipelines.code_spec import OVER_ASK, CodeConfig


def make(work: Work) -> None:
    """Drawn snippets → dialogs of each kind → kept."""
    ready()
    sources = Sources(work.input("snippets"))
    for title, reason in sorted(sources.faults.items()):
        work.drop(Item(title), "snippets", reason, title)
    for number, wanted in work.passes():
        parts = largest_remainder(dict(work.config.kinds), math.ceil(OVER_ASK * wanted))
        for kind, count in parts.items():
            if count:
                KINDS[kind](work, sources, number, count)
    tell(work)


def feedback(work: Work, sources: Sources, number: int, count: int) -> None:
    """Problems that snippets have inspired, solved, tested, and corrected."""
    config: CodeConfig = work.config
    drawn = [sources.lines(work.rng("lines", number, place)) for place in range(count)]
    items = [begun(work, one, config.languages[place % len(config.languages)], "feedback", number, place)
             for place, one in enumerate(drawn)]  # fmt: skip
    items = ask(work, can_run(work, items, "in"), "code/problem", into="said")
    items = parse(work, items, tagged("problem"), of="said", into="said", step="problem: parse")
    items = in_language(work, [item.plus(problem=item["said"]["problem"]) for item in items], "problem")
    items = different(work, items, "problem", [*work.known_texts(), *asked(work)], config.like)
    for item in corrected(work, solved(work, items)):
        check = Check("python_tests", {"tests": [item["tests"]]}) if item["in"] == "python" else None
        prompt = work.prompt(item, [user(item["problem"])], check=check) if check and config.sampled else None
        parents = (*((prompt.id,) if prompt else ()), *item.parents)
        row = work.row(item, dialog(item), parents=parents, labels={**labels_of(item), "revisions": item["revisions"]})
        work.keep(item, prompt, [row])


def translation(work: Work, sources: Sources, number: int, count: int) -> None:
    """Functions and short files in another language."""
    items = []
    for place, unit in enumerate(units(work, sources, "translation", number, count)):
        targets = [name for name in work.config.targets if name != unit.language]
        if targets:
            item = begun(work, unit, unit.language, "translation", number, place)
            items.append(item.plus(code=unit.text, to=targets[place % len(targets)]))
    for item in translated(work, can_run(work, can_run(work, items, "in"), "to")):
        request = f"Translate this {item['language']} code to {item['target']}:\n\n{fenced(item['in'], item['code'])}"
        said = [user(request), says(fenced(item["to"], item["answer"]))]
        work.keep(item, rows=[work.row(item, said, labels={**labels_of(item), "to": item["to"]})])


def explanations(work: Work, sources: Sources, number: int, count: int) -> None:
    """Explanations of functions and short files, each with the code that was written from it alone."""
    drawn = units(work, sources, "explained", number, count)
    items = [begun(work, one, one.language, "explained", number, place).plus(code=one.text)
             for place, one in enumerate(drawn)]  # fmt: skip
    for item in explained(work, can_run(work, items, "in")):
        request = f"Explain what this {item['language']} code does:\n\n{fenced(item['in'], item['code'])}"
        write = f"Write {item['language']} code that does what is described here.\n\n{item['explanation']}"
        pairs = [(request, item["explanation"]), (write, item["answer"])]
        labels = {**labels_of(item), "faithful": item["score"]}
        rows = [work.row(item, [user(question), says(answer)], labels=labels) for question, answer in pairs]
        work.keep(item, rows=rows)


KINDS = {"feedback": feedback, "translation": translation, "explained": explanations}


def asked(work: Work) -> list[str]:
    """The first message of each dialog that was kept."""
    return [row.messages[0]["content"] for made in work.made.values() for row in made.rows]


def units(work: Work, sources: Sources, kind: str, number: int, count: int) -> list[Snippet]:
    """Functions and short files, of each pass others."""
    found = sorted(sources.units, key=lambda unit: unit.title)
    work.rng(kind).shuffle(found)
    return found[(number - 1) * count :][:count]


def begun(work: Work, snippet: Snippet, language: str, kind: str, number: int, place: int) -> Item:
    """An item that starts from a snippet, with all that templates are told of its programming language."""
    of = LANGUAGES[language]
    values = {
        "kind": kind, "number": [kind, number, place], "snippet": snippet.text, "code": snippet.text, "in": language,
        "language": of.name, "mark": of.marks[0], "use": of.use, "least": work.config.least_tests,
        "fence": fence(snippet.text),
    }  # fmt: skip
    return work.item(values, parents=[work.document(snippet.text, snippet.title)])


def can_run(work: Work, items: list[Item], of: str) -> list[Item]:
    """The items whose programming language can be run on this machine."""
    return sift(work, items, lambda item: f"no {found} here" if (found := lacking(item[of])) else "", "toolchain", of)


def labels_of(item: Item) -> dict[str, Any]:
    """The labels of every row."""
    return {"kind": item["kind"], "programming_language": item["in"]}


def fenced(language: str, code: str) -> str:
    return f"```{LANGUAGES[language].marks[0]}\n{code.strip()}\n```"


def tell(work: Work) -> None:
    """How many solutions were wrong first and corrected by the teacher itself, for the manifest's summary."""
    labels = [row.labels for made in work.made.values() for row in made.rows if row.labels["kind"] == "feedback"]
    corrected = sum(one["revisions"] > 0 for one in labels)
    share = round(corrected / len(labels), 4) if labels else None
    work.job.summary.setdefault("code", {})[work.capability] = {
        "solved": len(labels), "self_corrected": corrected, "share": share,
    }  # fmt: skip
