"""Open questions: a judge prefers the model's answer or the reference, asked in both orders; the win rate is also given
at equal length.
"""

from eval.suites.making import Answering, Item, about, file_items, reference, write_suite
from eval.suites.prompts import conversation
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job


def run(job: Job) -> None:
    answering = Answering("chat", by="judge", max_new_tokens=job.config.max_new_tokens)
    write_suite(job, file_items(job, _of_record), answering)


def _of_record(record: Record) -> Item:
    told = str(reference(record, "reference", "output"))
    language = str(record.get("language", "en"))
    return Item(conversation(record), Check("judge", {"reference": told}), language=language, about=about(record))
