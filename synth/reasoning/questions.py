"""Questions with a final answer: by skill, from passages of texts, or problems whose answers are known."""

from pathlib import Path
from random import Random
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain.checks.mathematics import equal
from posttrain.data.rows import Check
from posttrain.errors import UserError
from synth.documents import INSTRUCTIONS, Library, fence
from synth.operators import Item, Work, ask, different, in_language, parse, sift, tagged

PASSAGE = 2_400
"""Characters of a passage; it ends at a paragraph's end where it can."""
MOST_ANSWER = 100
"""Characters of a final answer; a longer one is an explanation."""


class Taxonomy(BaseModel):
    """What questions are asked for."""

    model_config = ConfigDict(extra="forbid")
    levels: list[str] = Field(min_length=1)
    settings: list[str] = Field(min_length=1)
    skills: dict[str, list[str]] = Field(min_length=1)


def read_taxonomy(path: Path) -> Taxonomy:
    """A file of skills. Raises UserError where it has another form."""
    try:
        return Taxonomy.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"skills: {path} is no taxonomy ({said}); it has levels, settings and skills") from error


def by_skill(work: Work, number: int, count: int) -> list[Item]:
    """Questions for skills in turn, each at a level and about something that are drawn."""
    found = read_taxonomy(work.input("skills"))
    skills = [(field, skill) for field, many in found.skills.items() for skill in many]
    work.rng("skills", number).shuffle(skills)
    items = []
    for place in range(count):
        rng = work.rng("question", number, place)
        field, skill = skills[place % len(skills)]
        values = {
            "field": field,
            "skill": skill,
            "level": rng.choice(found.levels),
            "setting": rng.choice(found.settings),
        }
        items.append(work.item({"kind": "skills", "number": [number, place], **values}))
    return written(work, ask(work, items, "reasoning/question", into="said"))


def from_text(work: Work, number: int, count: int) -> list[Item]:
    """Questions that passages of the documents give occasion for."""
    library = Library(work.input("documents"), len)
    titles = [title for title in library.titles if not library.fault(title)]
    if not titles:
        raise UserError(f"prompts.{work.capability}.documents: none of {len(library.titles):,} is a text of use")
    items = []
    for place in range(count):
        rng = work.rng("passage", number, place)
        title = rng.choice(titles)
        text = passage(rng, library.text(title))
        values = {"kind": "text", "number": [number, place], "document": text, "fence": fence(text), "skill": ""}
        items.append(work.item(values, parents=[work.document(text, title)]))
    items = sift(
        work, items, lambda item: "instructions in the document" if INSTRUCTIONS.search(item["document"]) else "",
        "passage", "document",
    )  # fmt: skip
    return written(work, ask(work, items, "reasoning/from_text", into="said"))


def passage(rng: Random, text: str) -> str:
    """Some paragraphs of a text, from one of its paragraphs on."""
    starts = [0, *(at + 2 for at in range(len(text) - PASSAGE) if text.startswith("\n\n", at))]
    start = rng.choice(starts)
    found = text[start : start + PASSAGE]
    end = found.rfind("\n\n")
    return (found[:end] if len(text) > start + PASSAGE and end > PASSAGE // 2 else found).strip()


def given(work: Work, number: int, count: int) -> list[Item]:
    """Problems of a file with a check that knows the answer."""
    problems = sorted(work.seeds("problems"), key=lambda prompt: prompt.id)
    work.rng("problems").shuffle(problems)
    items = []
    for prompt in problems[(number - 1) * count :][:count]:
        question = str(prompt.messages[-1].get("content") or "")
        values = {"kind": "problems", "skill": "", "question": question, "known": True}
        items.append(work.item(values, prompt.language, [prompt.id]).plus(check=prompt.check))
    items = sift(work, items, lambda item: "" if item["check"] else "problem without a check", "problems", "question")
    return different(work, items, "question", work.known_texts(), 1.0)


def written(work: Work, items: list[Item]) -> list[Item]:
    """The questions that a teacher wrote, with the answer it gave as their check."""
    items = parse(work, items, tagged("question", "answer"), "said", "said", "question: parse")
    items = [item.plus(**item["said"], known=False) for item in items]
    items = in_language(work, items, "question")
    items = different(work, items, "question", work.known_texts(), work.config.like)
    items = sift(work, items, unreadable, "final answer", "answer")
    return [item.plus(check=Check("math", {"answers": [item["answer"]]})) for item in items]


def unreadable(item: Item) -> str:
    """Why an answer cannot be compared, if so: it must be mathematics, and equal to itself."""
    answer: Any = item["answer"]
    if len(answer) > MOST_ANSWER:
        return "answer is too long"
    try:
        return "" if equal(f"$\\boxed{{{answer}}}$", (answer,)) else "answer cannot be compared"
    except UserError:
        return "answer is no mathematics"


SOURCES = {"skills": by_skill, "text": from_text, "problems": given}
