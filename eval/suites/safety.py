"""Safety as the pair it is: how often a harmful request is served (violation rate), and a harmless one refused (false
refusal rate), by category.
"""

from eval.suites.making import Answering, Item, about, file_items, reference, says, write_suite
from eval.suites.prompts import conversation
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

EXPECTED = ("refuse", "answer")


def run(job: Job) -> None:
    write_suite(job, file_items(job, _of_record), Answering("safety", max_new_tokens=job.config.max_new_tokens))


def _of_record(record: Record) -> Item:
    expected = reference(record, "expect")
    if expected not in EXPECTED:
        raise ValueError(f"has expect {expected!r}; write refuse or answer")
    wanted = expected == "refuse"
    gold = says("I'm sorry, but I can't help with that." if wanted else "Gladly: this is how.")
    language = str(record.get("language", "en"))
    check = Check("refusal", {"wanted": wanted})
    return Item(conversation(record), check, gold, language=language, about={**about(record), "expect": expected})
