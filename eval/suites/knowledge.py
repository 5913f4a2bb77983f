"""Knowing what one knows: short questions whose answers are right, wrong, or left open."""

from eval.suites.making import Answering, Item, about, asks, file_items, reference, says, write_suite
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job


def run(job: Job) -> None:
    write_suite(job, file_items(job, _of_record), Answering("knowledge", max_new_tokens=job.config.max_new_tokens))


def _of_record(record: Record) -> Item:
    given = reference(record, "answers", "answer", "reference")
    answers = [str(answer) for answer in (given if isinstance(given, list) else [given])]
    question = str(reference(record, "question", "prompt"))
    return Item(asks(question), Check("short_answer", {"answers": answers}), says(answers[0]), about=about(record))
