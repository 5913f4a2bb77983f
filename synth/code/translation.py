"""Translation of code (P 4.3.1): the translated program must print, line by line, what the original prints."""

from collections.abc import Mapping

from synth.code.languages import LANGUAGES
from synth.code.toolchains import read_blocks, run_with
from synth.operators import Item, Work, ask, parse, sift, tagged


def translated(work: Work, items: list[Item]) -> list[Item]:
    """Items with `code` in the language `in` → with `answer`, the code in the language `to`, which was run."""
    items = programs(work, items)
    items = ask(work, [item.plus(**_target(item["to"])) for item in items], "code/translate", into="said")
    items = parse(work, items, tagged("code", "program"), "said", "parts", "translate: parse")
    items = [item.plus(said=item["parts"]["code"], rest=item["parts"]["program"]) for item in items]
    items = read_blocks(work, items, "to", "said", "answer", "translate: code")
    items = read_blocks(work, items, "to", "rest", "rest", "translate: program")
    items = run_with(work, items, lambda item: (item["to"], item["answer"], item["rest"]), "translation: run")
    return sift(work, items, _differs, "translation: compare", "answer")


def programs(work: Work, items: list[Item]) -> list[Item]:
    """With a `program` that ran in the code's own language, and what it `printed`."""
    items = ask(work, items, "code/program", into="said")
    items = read_blocks(work, items, "in", "said", "program", "program: parse")
    items = run_with(work, items, lambda item: (item["in"], item["code"], item["program"]), "program: run")

    def test(item: Item) -> str:
        if not item["outcome"].finished:
            return "program fails"
        lines = set(item["outcome"].stdout.splitlines())
        return "prints too little" if len(lines) < work.config.least_tests else ""

    ran = sift(work, items, test, "program: prints", "program")
    return [item.plus(printed=item["outcome"].stdout) for item in ran]


def _target(name: str) -> Mapping[str, str]:
    """What the template is told of the language that is translated into."""
    return {"target": LANGUAGES[name].name, "target_mark": LANGUAGES[name].marks[0], "use": LANGUAGES[name].use}


def _differs(item: Item) -> str:
    """Why a translation is none, if so."""
    if item["outcome"].step == "compile":
        return "translation does not compile"
    if not item["outcome"].finished:
        return "translation fails"
    return "" if _lines(item["outcome"].stdout) == _lines(item["printed"]) else "translation prints something else"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
