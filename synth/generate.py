"""Synthesis: each source of the recipe's `prompts:` through its pipeline, and the teacher's answers to a share of them.

A pipeline (`synth/pipelines`, docs/synthesis.md) makes prompts, and where it can, dialogs and preference pairs. The
teacher also answers a share of the prompts that came without a dialog; such an answer is kept when it ends by itself,
calls no tool that is not declared and no tool in a way that its own template has no words for, and its prompt's check
passes, where there is one (P 4.3.3: filtered by a correct final answer). Every drop is kept in `rejects` with its step,
its reason and its text.
"""

from collections import Counter
from contextlib import closing

from posttrain.checks.verifiers import grade
from posttrain.data.rows import Pair, Prompt, Response, Row, content_id
from posttrain.data.tables import TableWriter, write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.generate_spec import GenerateConfig, makes_pairs
from synth.meter import Meter
from synth.operators.asking import message_of
from synth.operators.bill import Bill
from synth.operators.items import Item
from synth.operators.work import TEACHER, Staff, Work
from synth.report import ANSWERS, write_report
from synth.sources import FILE_NAME, pipeline_module, pipeline_spec

HASH_STEPS = 10_000
"""The share of answered prompts is kept to a ten-thousandth."""


def run(job: Job) -> None:
    """Write `prompts`, `rows`, `rejects`, `report.json`, and where a pipeline has them `preferences` and `documents`.

    Raises UserError when nothing came of it.
    """
    config: GenerateConfig = job.config
    meter = Meter(job.report, _expected(config))
    job.report = meter
    with TableWriter(job.folder, "rejects") as rejects, closing(Staff(lambda m: open_engine(m, job.machine))) as staff:
        works = [Work(job, name, staff, rejects.add, meter) for name in config.prompts]
        for work in works:
            pipeline_module(work.config.from_).make(work)
            _cut_to_size(work)
            meter.finished(work.capability)
        if not any(work.made for work in works):
            raise UserError(f"{config.model} made no usable prompt or dialog; drops by reason: {_drops(works)}")
        answers = _answer(job, works)
        _write(job, works, answers)
    job.rows["rejects"] = rejects.count
    job.summary["prompts"] = {work.capability: {"wanted": work.config.rows, "kept": len(work.made)} for work in works}
    job.summary["drops"] = _drops(works)
    write_report(job, works, answers)
    if stopped := [work.stopped for work in works if work.stopped]:
        job.summary["warning"] = "; ".join(stopped)


def _expected(config: GenerateConfig) -> dict[str, int]:
    """How many texts each source is to ask, for the progress."""
    return {
        name: pipeline_spec(source.from_).estimate(name, source, {}).asked for name, source in config.prompts.items()
    }


def _drops(works: list[Work]) -> dict[str, dict[str, int]]:
    """Capability → reason → how many, and those of the answers."""
    found: dict[str, Counter[str]] = {name: Counter() for name in (*(work.capability for work in works), ANSWERS)}
    for work in works:
        for (step, _), tally in work.tallies.items():
            found[ANSWERS if step == ANSWERS else work.capability].update(tally.reasons)
    return {name: dict(sorted(reasons.items())) for name, reasons in sorted(found.items())}


def _cut_to_size(work: Work) -> None:
    """No more than wanted, chosen by a seeded hash."""
    surplus = sorted(work.made, key=lambda made: content_id(work.job.seed, made))[work.config.rows :]
    for key in surplus:
        made = work.made.pop(key)
        if work.config.from_ == FILE_NAME:  # a choice among what is there; nobody needs a copy of the rest
            work.tally("keep", made.language).lose("surplus")
        else:
            work.drop(Item(made.id, language=made.language), "keep", "surplus", row=made.one)


def _write(job: Job, works: list[Work], answers: list[Row]) -> None:
    """A prompt with a pair is left to the pair: whoever learns from it must not be asked about it (P 4.1.2)."""
    made = [one for work in works for one in work.made.values()]
    prompts = sorted((one.prompt for one in made if one.prompt and not one.pairs), key=lambda prompt: prompt.id)
    rows = [row for one in made for row in one.rows]
    job.rows["prompts"] = write_table(job.folder, "prompts", prompts)
    job.rows["rows"] = write_table(job.folder, "rows", [*answers, *_once(rows)])
    if makes_pairs(job.config):
        pairs = _once([pair for one in made for pair in one.pairs])
        job.rows["preferences"] = write_table(job.folder, "preferences", pairs)
    parents = {parent for one in made for made_of in one.all for parent in made_of.parents}
    documents = {key: one for work in works for key, one in work.documents.items() if key in parents}
    if documents:
        job.rows["documents"] = write_table(job.folder, "documents", [one for _, one in sorted(documents.items())])


def _once(rows: list[Row] | list[Pair]) -> list[Row | Pair]:
    """Each different one, in id order."""
    return [row for _, row in sorted({row.id: row for row in rows}.items())]


def _answer(job: Job, works: list[Work]) -> list[Row]:
    """The teacher's right answers to the chosen share of the prompts that have no dialog."""
    config: GenerateConfig = job.config
    of_id = {
        made.prompt.id: (work, made.prompt)
        for work in works
        for made in work.made.values()
        if made.prompt and not made.rows and work.spent_share < 1 and in_share(made.prompt, config.share)
    }
    if not of_id:
        return []
    engine = works[0].engine(TEACHER)
    works[0].meter.note = ANSWERS
    bill = Bill(engine)
    sampling = Sampling(1, config.answer_temperature, config.top_p, config.max_new_tokens)
    prompts = [prompt for _, prompt in of_id.values()]
    rows = []
    for response in answer_prompts(job, engine, prompts, sampling, config.chunk, config.model, ANSWERS):
        work, prompt = of_id[response.prompt_id]
        tally = work.tally(ANSWERS, prompt.language)
        bill.wrote(tally, 1, response.tokens)
        tally.came += 1
        row, reason = _row(prompt, response, engine)
        if reason:
            work.drop(Item(prompt.id, language=prompt.language), ANSWERS, reason, response.text, row)
        else:
            tally.left += 1
            rows.append(row)
    bill.settle()
    return rows


def in_share(prompt: Prompt, share: float) -> bool:
    """By hash of the id alone, so that the same prompt is in or out in every run."""
    return int(content_id("teacher answers", prompt.id), 16) % HASH_STEPS < share * HASH_STEPS


def _row(prompt: Prompt, response: Response, teacher: Engine) -> tuple[Row, str]:
    """The dialog that an answer makes, and why it cannot be used, if so."""
    message, reason = message_of(prompt, response, teacher)
    row = Row(
        (*prompt.messages, message), prompt.capability, prompt.language, prompt.source, prompt.tools,
        parents=(prompt.id,), made_by=response.made_by,
    )  # fmt: skip
    if reason:
        return row, reason
    value = grade(prompt.check, message).value if prompt.check else 1.0
    return row, "ungradable" if value is None else "wrong" if value < 1.0 else ""
