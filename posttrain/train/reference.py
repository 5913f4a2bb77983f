"""The reference's log-probabilities of every answer, computed once; a `dpo` after it loads no reference model.

They depend on the reference's weights and template, the rows and their masks: another learning rate, beta or loss of
DPO computes none of them again. Each is found by what was scored, token ids and mask, so DPO cannot take another's.
"""

import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from accelerate import Accelerator
from pyarrow import feather
from trl.trainer.utils import add_fused_lm_head

from posttrain.chat import Renderer
from posttrain.data.rows import Pair, content_id
from posttrain.data.tables import iter_table, pair_table
from posttrain.engines.lists import inputs_of
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.parallel import by_chunk
from posttrain.errors import UserError
from posttrain.machine import Launch, Machine
from posttrain.stages import Job
from posttrain.train.batches import Listed, list_batches, lists_of, preference_mask, render_pair, token_logprobs
from posttrain.train.dealt import begin, dealt, most, of_main
from posttrain.train.losses import masked_sum
from posttrain.train.preflight import preflight
from posttrain.train.split import open_part
from posttrain.train.trainer import can_share, read_inputs

FILE = "logprobs.arrow"
"""File of the artifact. No Parquet, as it is no table of rows that a person reads or another stage asks for by name."""
JOURNAL = "reference"
KEPT = 1
"""Tokens of a shared prompt that stand with its answers: the answer's first token is predicted from it."""


@dataclass(frozen=True)
class Logprob:
    """Of an answer, in nats: summed over its text, and over its format tokens (the end of its turn)."""

    text: float
    format: float

    def counted(self, mask_format_tokens: bool) -> float:
        """As the preference term counts it."""
        return self.text if mask_format_tokens else self.text + self.format


def run(job: Job) -> None:
    """Read pairs, compute, write a table of one row an answer. Raises UserError for no pairs, or if the preflight
    fails."""
    model = job.inputs["init"]
    lists = lists_of([example for _, example in load(job, Renderer.from_pretrained(model))])
    found = compute(job, model, lists)
    rows = {
        name: one for item, own in zip(lists, found, strict=True) for name, one in zip(names(item), own, strict=True)
    }
    columns = {"id": list(rows), **{part: [asdict(one)[part] for one in rows.values()] for part in ("text", "format")}}
    feather.write_feather(pa.table(columns), str(job.folder / FILE))
    job.rows["logprobs"] = len(rows)
    job.summary |= {"pairs": sum(len(item.pairs) for item in lists), "prompts": len(lists), "answers": len(rows)}


def load(job: Job, renderer: Renderer) -> list[tuple[Pair, dict[str, Any]]]:
    """The pairs of all folders, each once, in sorted id order, with their examples; the preflight proves them."""
    pairs: dict[str, Pair] = {
        pair.id: pair
        for folder, _ in read_inputs(job, "pairs", "preferences")
        for pair in iter_table(folder, pair_table(folder))
    }
    if not pairs:
        raise UserError(f"{job.name}: there is no pair to train on; see what the stages before it dropped, and why")
    ordered = [pairs[pair_id] for pair_id in sorted(pairs)]
    return preflight(job, renderer, ordered, partial(render_pair, renderer))


def names(item: Listed) -> list[str]:
    """Of each answer, a hash of all that its log-probability depends on besides the weights."""
    answers = item.answers
    return [
        content_id(answers.prompt, ids, mark) for ids, mark in zip(answers.answers, answers.marks or (), strict=True)
    ]


def with_reference(job: Job, lists: Sequence[Listed]) -> list[Listed]:
    """The lists with the reference's log-probability of each answer, read where the recipe has a stage for it."""
    if "logprobs" in job.inputs:
        found = read(job, job.inputs["logprobs"], lists)
    else:
        found = compute(job, job.inputs["reference"], lists)
    masked = job.config.mask_format_tokens
    return [
        replace(item, reference=[one.counted(masked) for one in own]) for item, own in zip(lists, found, strict=True)
    ]


def read(job: Job, folder: Path, lists: Sequence[Listed]) -> list[list[Logprob]]:
    """Of each list its answers', from the artifact of a reference stage. Raises UserError where it lacks one."""
    rows = feather.read_table(folder / FILE).to_pylist()
    found = {row["id"]: Logprob(row["text"], row["format"]) for row in rows}
    wanted = [names(item) for item in lists]
    missing = sum(name not in found for own in wanted for name in own)
    if missing:
        raise UserError(
            f"{job.name}: the reference stage has no log-probability of {missing:,} of {sum(map(len, wanted)):,} "
            "answers; give it the model with this template, the same max_length and over_length, and a place after "
            "the stage that mixes pairs"
        )
    return [[found[name] for name in own] for own in wanted]


def compute(job: Job, model: str | Path, lists: Sequence[Listed]) -> list[list[Logprob]]:
    """Of each list its answers', under the model. What is done stands in a journal, so that a killed stage goes on.

    The processes of a launch share the work, and all have the result.
    """
    journal, size = job.journal(JOURNAL), job.config.chunk
    accelerator = begin(job) if job.launch.processes > 1 else None
    if accelerator:
        journal.chunks = of_main(journal.chunks)
    spans = [(start, min(start + size, len(lists))) for start in range(0, len(lists), size)]
    # Another chunk size finds other names, and so nothing that would not fit.
    chunks = {f"{start:08d}-{end:08d}": (start, end) for start, end in spans}
    missing = {name: lists[start:end] for name, (start, end) in chunks.items() if name not in journal}
    done = len(lists) - sum(map(len, missing.values()))
    if accelerator:
        found = dealt(job, partial(_open_part, job, accelerator, model), sums_of, missing)
    else:
        found = by_chunk(job.machine, partial(_open, model), sums_of, missing)
    for name, rows in found:
        journal.append(name, rows)
        done += len(rows)
        # Processes that go in step also stop in step.
        (job.tell if accelerator else job.progress)(done, len(lists), "reference prompts")
    gc.collect()
    job.tokens += sum(item.answers.tokens for item in lists)
    return [[Logprob(*two) for two in row["logprobs"]] for row in journal.rows(list(chunks))]


@dataclass(frozen=True)
class Held:
    """The reference as a process has it, and how many tokens it reads at once."""

    loaded: Loaded
    limit: int
    launch: Launch = field(default_factory=Launch)


def _open(model: str | Path, machine: Machine) -> Held:
    loaded = load_model(model, machine, dtype=torch.float32)
    add_fused_lm_head(loaded.model)
    return Held(loaded, machine.batch_tokens)


def _open_part(job: Job, accelerator: Accelerator, model: str | Path) -> Held:
    return Held(open_part(job, accelerator, model), job.machine.batch_tokens, job.launch)


@torch.no_grad()
def sums_of(held: Held, lists: Sequence[Listed]) -> list[dict[str, Any]]:
    """Of each list its answers' text and format sums, as rows of the journal."""
    rows: dict[int, dict[str, Any]] = {}
    loaded, launch = held.loaded, held.launch
    cut = list_batches(lists, loaded.renderer.pad_id, held.limit, can_share(loaded, launch), KEPT)
    # All take part in each pass over split weights. Who needs fewer repeats the last, which gives the same again.
    for place in range(most(len(cut)) if launch.splits_weights else len(cut)):
        numbers, batch = cut[min(place, len(cut) - 1)]
        part = {name: value.to(loaded.device) for name, value in batch.items()}
        marks = part["marks"]
        # The same mixed precision as the policy's in training, so that equal models give equal log-probabilities.
        with torch.autocast("cuda", torch.bfloat16, enabled=loaded.device.type == "cuda"):
            logprobs = token_logprobs(loaded.model, inputs_of(loaded.model, part, logits_to_keep=1), marks > 0)
        text = preference_mask(marks, mask_format_tokens=True)
        sums = torch.stack([masked_sum(logprobs, text), masked_sum(logprobs, (marks > 0) & ~text)], 1)
        counts = [len(lists[i].answers.answers) for i in numbers]
        for i, found in zip(numbers, sums.split(counts), strict=True):
            rows[i] = {"logprobs": found.tolist()}
    return [rows[i] for i in range(len(lists))]
