"""Multiple choice: the letter that the model writes, or the choice whose text it finds likeliest."""

import random
from collections.abc import Iterator, Mapping

from eval.suites.choices_spec import ChoicesConfig
from eval.suites.making import Answering, By, Item, about, asks, file_items, reference, says, write_suite
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

LETTERS = "ABCDEFGHIJ"
FORM = "Answer with the letter of the right choice."
CHOICES = "choices"
"""The key of `made_by` that holds the texts."""


def run(job: Job) -> None:
    config: ChoicesConfig = job.config

    def of_record(record: Record) -> Item:
        texts = reference(record, "choices", "options")
        number = _place(record.get("answer"))
        labels = about(record, "subject")
        return _item(config, str(reference(record, "question", "prompt")), list(map(str, texts)), number, labels)

    items = file_items(job, of_record) if "file" in job.inputs else _made(config)
    by: By = "likelihood" if config.by == "likelihood" else "answer"
    write_suite(job, items, Answering("choices", by=by, max_new_tokens=config.max_new_tokens))


def _place(given: object) -> int:
    """The number of the right choice, from a letter or from itself."""
    text = "" if given is None else str(given).strip().upper()
    if not text:
        raise ValueError("has no answer")
    if len(text) == 1 and text in LETTERS:
        return LETTERS.index(text)
    try:
        return int(text.removesuffix(".0"))  # as Parquet has whole numbers beside missing ones
    except ValueError:
        raise ValueError(f"has the answer {given!r}; write a letter from A to J, or a number from 0") from None


def _made(config: ChoicesConfig) -> Iterator[Item]:
    rng, seen = random.Random(f"choices {config.seed}"), set[tuple[int, ...]]()
    while len(seen) < config.n:
        numbers = rng.sample(range(10, 1000), 4)
        if tuple(numbers) not in seen:
            seen.add(tuple(numbers))
            most = rng.random() < 0.5
            wanted = max(numbers) if most else min(numbers)
            listed = ", ".join(map(str, numbers))
            question = f"Which of these numbers is the {'largest' if most else 'smallest'}: {listed}?"
            category = {"category": "largest" if most else "smallest"}
            yield _item(config, question, list(map(str, numbers)), numbers.index(wanted), category)


def _item(config: ChoicesConfig, question: str, texts: list[str], number: int, labels: Mapping[str, object]) -> Item:
    if not 2 <= len(texts) <= len(LETTERS) or not 0 <= number < len(texts):
        raise ValueError(
            f"has {len(texts)} choices and the answer {number}; 2 to {len(LETTERS)} choices, counted from 0"
        )
    letters = LETTERS[: len(texts)]
    check = Check("choice", {"answer": letters[number], "letters": letters})
    if config.by == "likelihood":
        return Item(asks(question), check, says(letters[number]), about={**labels, CHOICES: texts})
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True))
    return Item(asks(f"{question}\n{listed}\n{FORM}"), check, says(letters[number]), about={**labels})
