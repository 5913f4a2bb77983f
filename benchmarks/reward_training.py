"""Training a reward model on edited > chosen > rejected: our lists against TRL's RewardTrainer on the same pairs.

    OMP_NUM_THREADS=1 python benchmarks/reward_training.py --write

Both are trained by `trainer.train()`, from the same random model, on the same triples: three answers and three pairs a
prompt. The peer gets them as three tokenised pairs, six rows, without gradient checkpointing and in float32 (its
defaults are slower here). A step holds all triples, so that both see the same at every step, and the losses of every
step must be equal to 1e-5. One thread, CPU time of the steps, the contenders in turn. By tokens put through the model
the ratio is 6·(P + N) / (P + 3·N).
"""

import argparse
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from harness import markdown, millions, parser, random_llama, ratio, report, turns
from transformers import TrainerCallback
from trl import RewardConfig as TrlArguments
from trl import RewardTrainer

from posttrain.chat import FORMAT, TRAINED, build_tokenizer
from posttrain.engines.loading import Loaded
from posttrain.machine import Machine
from posttrain.stages import Job
from posttrain.train.batches import lists_of
from posttrain.train.trainer import arguments, list_trainer, train
from reward.train import ListTrainer
from reward.train_spec import RewardConfig

VOCABULARY = 2048
TOLERANCE = 1e-5


class OwnIds:
    """Stands where the renderer does: the benchmark's rows are ids already."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.pad_id = tokenizer, tokenizer.pad_token_id


class Clock(TrainerCallback):
    """CPU seconds of every step, and its loss."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.process_time() - self.began)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def fresh_model(seed: int, tokenizer: Any) -> Any:
    return random_llama(
        seed, rewards=True, vocab_size=VOCABULARY, initializer_range=0.05, pad_token_id=tokenizer.pad_token_id
    )


def pairs_of(options: argparse.Namespace, lowest: int) -> list[dict[str, Any]]:
    """Every pair of each triple as `render_pair` gives it; a row's last token is the end of its turn."""
    generator = torch.Generator().manual_seed(options.seed)

    def ids(*shape: int) -> Any:
        return torch.randint(lowest, VOCABULARY, shape, generator=generator).tolist()

    mask = [0] * options.prompt + [TRAINED] * (options.response - 1) + [FORMAT]
    pairs = []
    for _ in range(options.triples):
        prompt = ids(options.prompt)
        rows = [prompt + answer for answer in ids(3, options.response)]
        pairs += [
            {"chosen_ids": better, "chosen_mask": mask, "rejected_ids": worse, "rejected_mask": mask}
            for better, worse in combinations(rows, 2)
        ]
    return pairs


def ours(job: Job, model: Any, tokenizer: Any, pairs: list[dict[str, Any]]) -> Clock:
    lists, clock = lists_of(pairs), Clock()
    trainer = list_trainer(job, Loaded(model, OwnIds(tokenizer)), lists, ListTrainer, TrlArguments)  # type: ignore[arg-type]
    trainer.add_callback(clock)
    train(job, trainer, [item.answers.longest for item in lists])
    return clock


def theirs(job: Job, model: Any, tokenizer: Any, pairs: list[dict[str, Any]]) -> Clock:
    """The same arguments, but that a step is all pairs."""
    rows = [{name: pair[name] for name in ("chosen_ids", "rejected_ids")} for pair in pairs]
    options = arguments(job, TrlArguments, len(rows))
    options.per_device_train_batch_size = len(rows)
    clock = Clock()
    RewardTrainer(
        model=model, args=options, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
    ).train()
    return clock


def measure(options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """CPU seconds a step in each repetition, ours and theirs."""
    tokenizer = build_tokenizer(["a few words to build a tokenizer of"] * 3, 512)
    pairs = pairs_of(options, lowest=len(tokenizer))
    spent: dict[Any, list[float]] = {ours: [], theirs: []}
    for number, order in turns((ours, theirs), options.repeat):
        clocks = {}
        for run in order:
            with tempfile.TemporaryDirectory() as folder:
                config = RewardConfig(batch_size=options.triples, epochs=options.steps, learning_rate=1e-4)
                machine = Machine(device="cpu", threads=1)
                job = Job(config=config, inputs={}, folder=Path(folder), seed=options.seed, machine=machine)
                clocks[run] = run(job, fresh_model(options.seed, tokenizer), tokenizer, pairs)
            spent[run].append(statistics.median(clocks[run].seconds[1:]))  # the first step warms up
        losses = list(zip(clocks[ours].losses, clocks[theirs].losses, strict=True))
        assert all(abs(one - two) < TOLERANCE for one, two in losses), f"losses differ: {losses}"
        print(f"{number + 1}: ours {spent[ours][-1]:.2f} s, TRL {spent[theirs][-1]:.2f} s a step; {losses}", flush=True)
    return spent[ours], spent[theirs]


def main() -> None:
    options = parser(__doc__, prompt=512, response=64, triples=4, steps=4, repeat=3).parse_args()
    torch.set_num_threads(1)
    own, peer = measure(options)
    bound = 6 * (options.prompt + options.response) / (options.prompt + 3 * options.response)
    contenders = (("`reward.train` on lists", min(own)), ("TRL's RewardTrainer on the pairs", min(peer)))
    lines = [
        *markdown(
            ("Contender", "CPU seconds a step, fastest repetition", "triples/s"),
            [(name, f"{seconds:.2f}", f"{options.triples / seconds:.2f}") for name, seconds in contenders],
        ),
        "",
        f"{ratio(own, peer)}; by tokens {bound:.2f}×. The losses of every step are equal to {TOLERANCE:g}.",
    ]
    about = (
        f"{options.triples} triples a step (edited > chosen > rejected, all three pairs), prompt {options.prompt}, "
        f"response {options.response}, {options.steps} steps, {options.repeat} repetitions in turn; random Llama "
        f"reward model of {millions(random_llama(0, rewards=True, vocab_size=VOCABULARY))} parameters, float32, one "
        "thread, CPU time"
    )
    report("Training a reward model on triples", lines, options, about, "torch", "transformers", "trl")


if __name__ == "__main__":
    main()
