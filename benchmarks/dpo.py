"""DPO against TRL's DPOTrainer: the same pairs, model, loss and optimiser, pairs a second.

    OMP_NUM_THREADS=1 python benchmarks/dpo.py --write

Both are trained by `trainer.train()` on shuffled steps of `--pairs` pairs, one thread, CPU time of the steps, the
contenders in turn. The peer is DPOTrainer in float32 without gradient checkpointing (its default is slower here), which
pads a step's pairs to its longest; its padding is part of the work. The loss is DPO's alone (no NLL, end of turn
counted), against the log-probabilities of another model. Steps have no rate, so that the mean loss of an epoch must be
the same for both, whatever their order, to TOLERANCE.

In three epochs the reference counts: ours reads the artifact of the `reference` stage, the peer computes it in every
step (its default) or once before the first (precompute_ref_log_probs).
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from harness import markdown, millions, parser, random_llama, ratio, report, turns
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from posttrain.chat import FORMAT, TRAINED, build_tokenizer
from posttrain.engines.loading import Loaded
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train.batches import Listed, lists_of
from posttrain.train.dpo import preference_trainer
from posttrain.train.dpo_spec import DpoConfig
from posttrain.train.reference import Held, sums_of
from posttrain.train.trainer import arguments, train

VOCABULARY = 2048
TOLERANCE = 1e-4
NO_RATE = 1e-30


@dataclass(frozen=True)
class Case:
    """Pairs whose prompts and answers have between so many tokens, drawn log-uniformly."""

    name: str
    prompt: tuple[int, int]
    answer: tuple[int, int]
    steps: int
    epochs: int
    target: float


CASES = (
    Case("prompt 1,024, answers 64", (1024, 1024), (64, 64), 2, 1, 1.7),
    Case("prompts 64 to 1,024, answers 16 to 256", (64, 1024), (16, 256), 4, 1, 1.8),
    Case("the same, three epochs with the reference", (64, 1024), (16, 256), 2, 3, 1.8),
    Case("prompt 32, answers 512", (32, 32), (512, 512), 2, 1, 1.0),
)


class OwnIds:
    """Stands where the renderer does: the benchmark's rows are ids already."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.pad_id = tokenizer, tokenizer.pad_token_id


class Prepared(DPOTrainer):
    """TRL's trainer on rows that are tokenised already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset if "ref_chosen_logps" in dataset.column_names else super()._precompute_ref_logps(dataset, *args)


class Clock(TrainerCallback):
    """CPU seconds before the first step and of all steps, and the losses."""

    def __init__(self) -> None:
        self.before = self.steps = self.began = 0.0
        self.losses: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += time.process_time() - self.began

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


@dataclass(frozen=True)
class Work:
    """What every contender gets: the case, a seed, ids of a tokenizer, and rendered pairs with the reference's sums."""

    case: Case
    seed: int
    size: int
    tokenizer: Any
    pairs: list[dict[str, Any]]
    lists: list[Listed]

    def job(self, folder: str) -> Job:
        config = DpoConfig(
            batch_size=self.size,
            epochs=self.case.epochs,
            learning_rate=NO_RATE,
            nll_weight=0.0,
            mask_format_tokens=False,
        )
        machine = Machine(device="cpu", threads=1)
        return Job(config=config, inputs={}, folder=Path(folder), seed=self.seed, name="dpo", machine=machine)


def pairs_of(case: Case, count: int, seed: int, lowest: int) -> list[dict[str, Any]]:
    """Pairs as `render_pair` gives them; a row's last token is the end of its turn."""
    generator = random.Random(f"{case.prompt}:{case.answer}:{seed}")

    def ids(least: int, most: int) -> list[int]:
        length = round(math.exp(generator.uniform(math.log(least), math.log(most))))
        return [generator.randrange(lowest, VOCABULARY) for _ in range(length)]

    pairs = []
    for _ in range(count):
        prompt, pair = ids(*case.prompt), {}
        for side in ("chosen", "rejected"):
            answer = ids(*case.answer)
            pair[f"{side}_ids"] = prompt + answer
            pair[f"{side}_mask"] = [0] * len(prompt) + [TRAINED] * (len(answer) - 1) + [FORMAT]
        pairs.append(pair)
    return pairs


def model_of(tokenizer: Any, seed: int) -> Any:
    return random_llama(seed, vocab_size=VOCABULARY, pad_token_id=tokenizer.pad_token_id)


def prepared(case: Case, size: int, seed: int) -> tuple[Work, float]:
    """The case's pairs with the reference's log-probabilities, and the CPU seconds that those took."""
    tokenizer = build_tokenizer(["a few words to build a tokenizer of"] * 3, 512)
    pairs = pairs_of(case, size * case.steps, seed, lowest=len(tokenizer))
    lists, reference = lists_of(pairs), model_of(tokenizer, seed + 1)
    add_fused_lm_head(reference)
    began = time.process_time()
    held = Held(Loaded(reference, OwnIds(tokenizer)), Machine().batch_tokens)  # type: ignore[arg-type]
    rows = sums_of(held, lists)
    seconds = time.process_time() - began
    sums = [[sum(two) for two in row["logprobs"]] for row in rows]
    given = [replace(item, reference=own, kinds=[0]) for item, own in zip(lists, sums, strict=True)]
    return Work(case, seed, size, tokenizer, pairs, given), seconds


def ours(work: Work, folder: str) -> Clock:
    """`dpo` with the reference's log-probabilities given, as the stage before it leaves them."""
    job, clock, loaded = work.job(folder), Clock(), Loaded(model_of(work.tokenizer, work.seed), OwnIds(work.tokenizer))  # type: ignore[arg-type]
    trainer = preference_trainer(job, loaded, work.lists, ("general",))
    trainer.add_callback(clock)
    train(job, trainer, [item.answers.longest for item in work.lists])
    return clock


def theirs(work: Work, folder: str, precompute: bool = True) -> Clock:
    """TRL on the same pairs, the reference computed before the first step, or given where that does not count."""
    rows = []
    for pair, item in zip(work.pairs, work.lists, strict=True):
        start = pair["chosen_mask"].index(TRAINED)
        row = {side: pair[side][start:] for side in ("chosen_ids", "rejected_ids")}
        if work.case.epochs == 1:
            row |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), item.reference, strict=True))
        rows.append({"prompt_ids": pair["chosen_ids"][:start], **row})
    options = arguments(work.job(folder), TrlArguments, len(rows), precompute_ref_log_probs=precompute)
    options.pad_to_multiple_of = None
    policy, reference = (model_of(work.tokenizer, work.seed + number) for number in (0, 1))
    clock, began = Clock(), time.process_time()
    trainer = Prepared(
        model=policy, ref_model=reference, args=options, train_dataset=Dataset.from_list(rows),
        processing_class=work.tokenizer, callbacks=[clock],
    )  # fmt: skip
    clock.before = time.process_time() - began
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock


def theirs_each_step(work: Work, folder: str) -> Clock:
    """TRL at its default: the reference is in memory and computed in every step."""
    return theirs(work, folder, precompute=False)


def spent(case: Case, clock: Clock) -> float:
    """CPU seconds that count: where the reference does, those before the first step too."""
    return clock.steps + (clock.before if case.epochs > 1 else 0.0)


def measure(case: Case, options: argparse.Namespace) -> list[list[Any]]:
    """Rows of the table: each peer against ours."""
    work, once = prepared(case, options.pairs, options.seed)
    ways = (ours, theirs, theirs_each_step) if case.epochs > 1 else (ours, theirs)
    times: dict[Any, list[float]] = {way: [] for way in ways}
    for number, order in turns(ways, options.repeat):
        losses = {}
        for way in order:
            with tempfile.TemporaryDirectory() as folder:
                clock = way(work, folder)
            times[way].append(spent(case, clock))
            losses[way] = statistics.fmean(clock.losses)
        print(
            f"{case.name}, {number + 1}: {[f'{times[way][-1]:.2f} s' for way in ways]}, losses {losses.values()}",
            flush=True,
        )
        assert max(losses.values()) - min(losses.values()) < TOLERANCE, f"losses differ: {losses}"
    count = options.pairs * case.steps * case.epochs
    return [_row(case, count, once, times[ours], way, times[way]) for way in ways[1:]]


def _row(case: Case, count: int, once: float, own: list[float], way: Any, peer: list[float]) -> list[Any]:
    name = f"{case.name} ({once:.1f} s, once, by its stage)" if case.epochs > 1 else case.name
    against = {theirs: "precomputed", theirs_each_step: "in every step"}[way]
    return [name, against, f"{count / min(own):.2f}", f"{count / min(peer):.2f}", ratio(own, peer), f"{case.target}×"]


def main() -> None:
    options = parser(__doc__, pairs=8, repeat=3).parse_args()
    torch.set_num_threads(1)
    rows = [row for case in CASES for row in measure(case, options)]
    head = ("Case", "Reference of the peer", "`dpo`, pairs/s", "TRL's DPOTrainer, pairs/s", "Ratio", "Target")
    lines = [
        *markdown(head, rows),
        "",
        "Pairs/s are of the fastest repetition. Over three epochs the peer's reference counts; ours is the artifact's, "
        "whose seconds are named. By tokens the first case gives 1.89×. The mean losses are equal to "
        f"{TOLERANCE:g}.",
    ]
    about = (
        f"{options.pairs} pairs a step, {options.repeat} repetitions in turn; random Llama of "
        f"{millions(random_llama(0, vocab_size=VOCABULARY))} parameters, float32, one thread, CPU time of the steps"
    )
    report("DPO", lines, options, about, "torch", "transformers", "trl")


if __name__ == "__main__":
    main()
