"""Training a reward model on edited > chosen > rejected: our lists against TRL's RewardTrainer on the same pairs.

    OMP_NUM_THREADS=1 python benchmarks/reward_training.py --write

Both are trained by `trainer.train()`, from the same random model, on the same triples: three answers and three pairs a
prompt. The peer gets them as three tokenised pairs, six rows, without gradient checkpointing and in float32 (its
defaults are slower here). A step holds all triples, so that both see the same at every step, and the losses of every
step must be equal to 1e-5. One thread, CPU time of the steps, the contenders in turn. By tokens put through the model
the ratio is 6·(P + N) / (P + 3·N).
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from transformers import LlamaConfig, LlamaForSequenceClassification, TrainerCallback
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

RESULTS = Path(__file__).parent / "results" / "reward_training.md"
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


def random_llama(seed: int, pad_id: int) -> Any:
    """5.3M parameters in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=4096, initializer_range=0.05, pad_token_id=pad_id, num_labels=1,
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


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


def measure(options: argparse.Namespace) -> list[tuple[float, float]]:
    """CPU seconds a step in each repetition, (ours, theirs)."""
    tokenizer = build_tokenizer(["a few words to build a tokenizer of"] * 3, 512)
    pairs = pairs_of(options, lowest=len(tokenizer))
    both = []
    for number in range(options.repeat):
        clocks = {}
        for run in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            with tempfile.TemporaryDirectory() as folder:
                config = RewardConfig(batch_size=options.triples, epochs=options.steps, learning_rate=1e-4)
                machine = Machine(device="cpu", threads=1)
                job = Job(config=config, inputs={}, folder=Path(folder), seed=options.seed, machine=machine)
                clocks[run] = run(job, random_llama(options.seed, tokenizer.pad_token_id), tokenizer, pairs)
        losses = list(zip(clocks[ours].losses, clocks[theirs].losses, strict=True))
        assert all(abs(one - two) < TOLERANCE for one, two in losses), f"losses differ: {losses}"
        spent = [statistics.median(clocks[run].seconds[1:]) for run in (ours, theirs)]  # the first step warms up
        both.append((spent[0], spent[1]))
        print(
            f"{number + 1}: ours {spent[0]:.2f} s, TRL {spent[1]:.2f} s of CPU time a step; losses {losses}", flush=True
        )
    return both


def table(options: argparse.Namespace, both: list[tuple[float, float]]) -> str:
    own, peer = (min(times) for times in zip(*both, strict=True))
    ratios = [theirs / ours for ours, theirs in both]
    bound = 6 * (options.prompt + options.response) / (options.prompt + 3 * options.response)
    return "\n".join([
        "# Training a reward model on triples", "",
        f"`python benchmarks/reward_training.py --write`: {options.triples} triples a step (edited > chosen > "
        f"rejected, all three pairs), prompt {options.prompt}, response {options.response}, seed {options.seed}, "
        f"{options.steps} steps, {options.repeat} repetitions in turn; random Llama reward model of 5.3M parameters, "
        f"float32, one thread, {os.cpu_count()}-core {platform.machine()} CPU shared with other work (so CPU time), "
        f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}, "
        f"{options.date}.", "",
        "| Contender | CPU seconds a step, fastest repetition | triples/s |", "|---|---|---|",
        f"| `reward.train` on lists | {own:.2f} | {options.triples / own:.2f} |",
        f"| TRL's RewardTrainer on the pairs | {peer:.2f} | {options.triples / peer:.2f} |", "",
        f"**{statistics.median(ratios):.2f}×** (median of {', '.join(f'{r:.2f}' for r in ratios)}); by tokens "
        f"{bound:.2f}×. The losses of every step are equal to {TOLERANCE:g}.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("prompt", 512), ("response", 64), ("triples", 4), ("steps", 4), ("repeat", 3), ("seed", 0))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = table(options, measure(options))
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
