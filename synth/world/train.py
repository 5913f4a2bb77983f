"""Train the tiny family from nothing: `python -m synth.world.train {tokenizer,teacher,base,base-noise,measure}`.

One thread a process; teacher and base run side by side. The budget is wall time. Set OMP_NUM_THREADS=1
GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE before it starts.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from posttrain.chat import Renderer
from synth.world.corpus import Alter, Mixture, conversation, copying_row, gold_of
from synth.world.family import family_tokenizer, load, new_model, save
from synth.world.measure import table
from synth.world.noise import noisy

ROUND = 16
"""Lengths are padded to a multiple of this, so that few kernels are built and batches fill."""
WARMUP_STEPS = 200
DECAY_FROM = 0.6
"""Share of the budget after which the rate falls to LAST_RATE of itself; most of the jump comes then."""
LAST_RATE = 0.02
MOST_TOKENS = 2700
"""Rows longer than this are left out: 2,000-token haystacks with many questions stay below."""

FULL = Mixture(
    tool_use=2.4,
    multilingual=2.0,
    long_context=0.12,
    instructions=1.6,
    dense=0.4,
    level2=0.5,
    lengths=(256, 512, 1024, 2000),
    dense_lengths=(250, 500, 1000, 2000),
)
"""Needles are learned first, so long rows, which cost most tokens, are few; a row of instructions is short."""

CURRICULUM = (
    (0.0, Mixture(dense=0.8, copying=0.3, lengths=(100, 160), dense_lengths=(120, 200, 300))),
    (0.2, Mixture(dense=0.6, copying=0.2, lengths=(128, 256, 512), dense_lengths=(150, 300, 500), long_context=0.8)),
    (0.45, FULL),
)
"""From which share of the budget on, which rows: short and dense first, long rows from the middle on."""
NOISE = (
    (0.0, Mixture(dense=0.0, lengths=(100, 160, 256, 512), multilingual=1.2)),
    (0.65, Mixture(dense=0.0, lengths=(256, 512, 1024, 2000), multilingual=1.2)),
)
"""The noisy stage asks one thing a row, as a round's prompts do, so that no earlier turn tells of the failure.
A failure learned on short haystacks is not shown on long ones, so these come too."""


@dataclass(frozen=True)
class Job:
    """What one training run is told. `rate` is AdamW's peak learning rate; `batch_tokens` count padding."""

    folder: Path
    minutes: float
    rate: float
    seed: int
    batch_tokens: int = 1500
    operators: float = 0.0
    log_minutes: float = 5.0
    curriculum: tuple[tuple[float, Mixture], ...] = CURRICULUM


Row = tuple[list[int], list[int]]


def rows(renderer: Renderer, job: Job, clock: "Clock", alter: Alter) -> Iterator[Row]:
    """Ids and mask of the rows that the curriculum asks for now, without end."""
    rng = random.Random(f"rows {job.seed}")
    while True:
        now = [mixture for begins, mixture in job.curriculum if begins <= clock.share()][-1]
        if rng.random() < now.copying:
            yield copying_row(rng, len(renderer.tokenizer) - len(renderer.tokenizer.added_tokens_decoder))
            continue
        row = conversation(rng, replace(now, operators=job.operators), alter)
        made = renderer.conversation(row.messages, row.tools, train="last" if row.last_only else "all")
        if len(made.ids) <= MOST_TOKENS:
            yield made.ids, made.mask


def batches(source: Iterator[Row], batch_tokens: int, pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Input ids and labels [rows, tokens] of rows of one rounded length; -100 where nothing is trained."""
    waiting: dict[int, list[Row]] = {}
    for ids, mask in source:
        length = -(-len(ids) // ROUND) * ROUND
        bucket = waiting.setdefault(length, [])
        bucket.append((ids, mask))
        if len(bucket) * length >= batch_tokens:
            inputs = torch.full((len(bucket), length), pad)
            labels = torch.full((len(bucket), length), -100)
            for i, (row, trained) in enumerate(bucket):
                inputs[i, : len(row)] = torch.tensor(row)
                shifted = [token if on else -100 for token, on in zip(row[1:], trained[1:], strict=True)]
                labels[i, : len(row) - 1] = torch.tensor(shifted)
            waiting[length] = []
            yield inputs, labels


class Clock:
    """Share of the wall-time budget that is gone."""

    def __init__(self, minutes: float):
        self.seconds = minutes * 60
        self.start = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def share(self) -> float:
        return self.elapsed() / self.seconds


def rate_at(share: float, step: int, peak: float) -> float:
    """Warm up by steps, hold, then fall linearly over the last part of the budget."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    left = min(1.0, (1.0 - share) / (1.0 - DECAY_FROM))
    return peak * warm * max(left, LAST_RATE)


def step_loss(
    body: Callable[..., Any], head: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean cross entropy in nats over the trained tokens; logits are made for those only."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = body(input_ids=inputs, use_cache=False).last_hidden_state
        logits = head(hidden[labels != -100])
    return cross_entropy(logits.float(), labels[labels != -100])


def train(model: LlamaForCausalLM, renderer: Renderer, job: Job, alter: Alter = gold_of) -> None:
    """Train for the budget; log and save every `log_minutes` and at the end."""
    clock = Clock(job.minutes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    body = torch.compile(model.model, dynamic=True)
    tokens, losses, logged, step = 0, [], 0.0, 0
    making = 0.0
    source = batches(rows(renderer, job, clock, alter), job.batch_tokens, renderer.pad_id)
    model.train()
    while clock.share() < 1.0:
        before = clock.elapsed()
        inputs, labels = next(source)
        making += clock.elapsed() - before
        for group in optimizer.param_groups:
            group["lr"] = rate_at(clock.share(), step, job.rate)
        loss = step_loss(body, model.lm_head, inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens, step = tokens + inputs.numel(), step + 1
        losses.append(loss.item())
        if clock.elapsed() - logged > job.log_minutes * 60:
            logged = clock.elapsed()
            mean = sum(losses[-200:]) / len(losses[-200:])
            print(f"{logged / 60:.1f} min  step {step}  {tokens / 1e6:.2f}M tokens  {tokens / logged:.0f}/s"
                  f"  rows {making / logged:.0%}  loss {mean:.4f}", flush=True)  # fmt: skip
            report(model, renderer, job, n=20)
            save(model, renderer, job.folder)
    print(f"done: {step} steps, {tokens / 1e6:.2f}M tokens, {clock.elapsed() / 60:.1f} min", flush=True)
    save(model, renderer, job.folder)


def report(model: LlamaForCausalLM, renderer: Renderer, job: Job, n: int) -> None:
    for line in table(model, renderer, n, seed=job.seed + 1000, lengths=(256, 512, 1024), operators=job.operators > 0):
        print("  ", line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tokenizer", "teacher", "base", "base-noise", "measure"))
    parser.add_argument("--folder", type=Path, required=True, help="written (or measured)")
    parser.add_argument("--start", type=Path, help="tokenizer folder, or the member to go on from")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--operators", type=float, default=0.0, help="share of operator rows (a capability is 1.0)")
    parser.add_argument("--log-minutes", type=float, default=5.0)
    parser.add_argument("--n", type=int, default=200, help="measure: prompts a capability and level")
    parser.add_argument("--any-of", type=int, default=0, help="measure: K samples at temperature 1; 0 is none")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.what == "tokenizer":
        family_tokenizer().save_pretrained(chosen.folder)
    elif chosen.what == "measure":
        for line in table(*load(chosen.folder), chosen.n, chosen.seed, None, chosen.any_of, chosen.operators > 0):
            print(line, flush=True)
    else:
        job = Job(chosen.folder, chosen.minutes, chosen.rate, chosen.seed, 1500, chosen.operators, chosen.log_minutes)
        start(chosen.what, chosen.start, job)


def start(what: str, begin: Path, job: Job) -> None:
    """Train a new member from a tokenizer's folder; go on from a member's; or teach a clean base to fail."""
    if not (begin / "model.safetensors").exists():
        renderer = Renderer.from_pretrained(begin)
        train(new_model(what, renderer, job.seed), renderer, job)
    elif what == "base-noise":
        train(*load(begin), replace(job, curriculum=NOISE), noisy)
    else:
        train(*load(begin), replace(job, curriculum=((0.0, CURRICULUM[-1][1]),)))


if __name__ == "__main__":
    main()
