"""Multilingual: look up, add, take away, count weekdays, turn qualities round, asked and answered in one language."""

import random
from typing import Any

from posttrain.data.rows import LANGUAGES, Check, Message, Prompt
from synth.world.base import Spec, one_of, says, user
from synth.world.languages import ENGLISH_NAMES, SCRIPTS, TABLE, Language
from synth.world.words import NAMES

CAPABILITY = "multilingual"


def draw(rng: random.Random, level: int = 1, language: str | None = None, names: list[str] | None = None) -> Spec:
    """One task. Level 2 has four facts, sums to 18, two days later, and a bystander in every story; half of all
    questions are announced as one."""
    people = rng.sample(names or NAMES, 4)
    kind = one_of(rng, ("lookup", 0.35), ("plus", 0.15), ("minus", 0.15), ("day", 0.2), ("opposite", 0.15))
    spec: Spec = {
        "capability": CAPABILITY, "kind": kind, "level": level, "language": language or rng.choice(LANGUAGES),
        "item": rng.randrange(6), "announced": rng.random() < 0.5,
    }  # fmt: skip
    if kind == "lookup":
        some = people[: rng.choice((2, 3)) if level == 1 else 4]
        facts = [list(fact) for fact in zip(some, rng.sample(range(6), len(some)), strict=True)]
        return {**spec, "facts": facts, "asked": rng.randrange(len(facts))}
    if kind in ("plus", "minus"):
        return {**spec, "people": people[:1], "numbers": _numbers(rng, kind, level), **_bystander(rng, people, level)}
    if kind == "day":
        return {**spec, "people": people[:2], "day": rng.randrange(7), "later": rng.randint(1, level),
                **_bystander(rng, people, level)}  # fmt: skip
    return {**spec, "people": people[:2], "quality": [rng.randrange(4), rng.randrange(2)],
            **_bystander(rng, people, level)}  # fmt: skip


def _numbers(rng: random.Random, kind: str, level: int) -> list[int]:
    """Two numbers whose sum (to 9, level 2 to 18) or difference stays above 1."""
    if kind == "minus":
        first = rng.randint(4, 9)
        return [first, rng.randint(2, first - 2)]
    first = rng.randint(2, 9 if level == 2 else 7)
    return [first, rng.randint(2, 9 if level == 2 else 9 - first)]


def _bystander(rng: random.Random, people: list[str], level: int) -> dict[str, Any]:
    return {"bystander": [people[3], rng.randint(2, 9), rng.randrange(6)]} if level == 2 else {}


def sentences(spec: Spec, language: str) -> tuple[str, str]:
    """The story and the question of a spec in a language."""
    words = TABLE[language]
    kind = spec["kind"]
    if kind == "lookup":
        return "\n".join(_entry(words, fact) for fact in spec["facts"]), words.owns.format(n=_asked(spec)[0])
    story = [_fact(words, spec["bystander"])] if "bystander" in spec else []
    told, question = _told(spec, words)
    return " ".join([*story, told]), question


def _entry(words: Language, fact: list[Any]) -> str:
    """A line of the list that is looked up in: who has what."""
    return f"{fact[0]}: {words.items[fact[1]]}"


def _asked(spec: Spec) -> list[Any]:
    fact: list[Any] = spec["facts"][spec["asked"]]
    return fact


def _fact(words: Language, fact: list[Any]) -> str:
    name, number, item = fact
    return words.has.format(n=name, k=number, i=words.items[item])


def _told(spec: Spec, words: Language) -> tuple[str, str]:
    n = spec["people"][0]
    if spec["kind"] in ("plus", "minus"):
        (a, b), item = spec["numbers"], words.items[spec["item"]]
        change = words.more if spec["kind"] == "plus" else words.fewer
        return change.format(n=n, a=a, b=b, i=item), words.how_many.format(n=n, i=item)
    m = spec["people"][1]
    if spec["kind"] == "day":
        day = words.days[spec["day"]]
        return f"{words.comes.format(n=n, d=day)} {words.later[spec['later'] - 1].format(m=m)}", words.when.format(m=m)
    pair, side = spec["quality"]
    tea = words.tea.format(n=n, x=words.opposites[pair][side])
    return f"{tea} {words.opposite.format(m=m)}", words.how_tea.format(m=m)


def answer(spec: Spec) -> str:
    words, kind = TABLE[spec["language"]], spec["kind"]
    if kind == "lookup":
        return _entry(words, _asked(spec))
    if kind in ("plus", "minus"):
        a, b = spec["numbers"]
        return _fact(words, [spec["people"][0], a + b if kind == "plus" else a - b, spec["item"]])
    m = spec["people"][1]
    if kind == "day":
        return words.comes.format(n=m, d=words.days[(spec["day"] + spec["later"]) % 7])
    pair, side = spec["quality"]
    return words.tea.format(n=m, x=words.opposites[pair][1 - side])


def state(spec: Spec, rng: random.Random) -> str:
    return told(spec, spec["language"])


def told(spec: Spec, language: str) -> str:
    """Story and question in a language."""
    story, question = sentences(spec, language)
    announced = f"{TABLE[language].question} {question}" if spec["announced"] else question
    return story + ("\n" if spec["kind"] == "lookup" else " ") + announced


def build(spec: Spec, text: str) -> Prompt:
    check = Check("exact", {"answers": [gold(spec)["content"]]})
    return Prompt((user(text),), CAPABILITY, language=spec["language"], check=check)


def gold(spec: Spec) -> Message:
    return says(answer(spec))


def faithful(spec: Spec, text: str) -> bool:
    """Story and question stand in the text in the spec's language, whatever introduces the question."""
    story, question = sentences(spec, spec["language"])
    return text.startswith(story) and text.endswith(question) and in_script(text, spec["language"])


def in_script(text: str, language: str) -> bool:
    """Text of a language with letters of its own has some of them, and other text has none."""
    has = {name: any(first <= letter <= last for letter in text) for name, (first, last) in SCRIPTS.items()}
    return all(found == (name == language) for name, found in has.items())


def operator(spec: Spec) -> dict[str, Any]:
    """Variables of the operator prompt `common/translate`: the task in English and the language to write in."""
    return {"text": told(spec, "en"), "language": ENGLISH_NAMES[spec["language"]]}
