"""Train the tiny family from nothing: `python -m synth.world.train {tokenizer,base,teacher} --out FOLDER`.

A member is made in stages, each from what stands in FOLDER; what is missing there is made first. A stage's budget is in
tokens and its work is cut the same way every time, so that the same machine makes the same weights. `measure` says what
a member can do.
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
from transformers import AttentionInterface, LlamaForCausalLM

from posttrain.chat import Renderer
from synth.world.attention import attend
from synth.world.corpus import Alter, Mixture, conversation, copying_row, gold_of
from synth.world.family import family_tokenizer, load, new_model, save
from synth.world.growth import grow
from synth.world.measure import table
from synth.world.noise import noisy

THREADS = 2
"""Part of what a training is: another number adds up in another order."""
BATCH_TOKENS = 1500
"""Tokens of a step, counted with padding."""
ROUND = 16
"""Lengths are padded to a multiple of this, so that few kernels are built and batches fill."""
MOST_TOKENS = 2700
"""Rows longer than this are left out: 2,000-token haystacks with many questions stay below."""
WARMUP_STEPS = 200
DECAY_FROM = 0.6
"""Share of the budget after which the rate falls to LAST_RATE of itself; most of the jump comes then."""
LAST_RATE = 0.02
LOG_MINUTES = 2.0
ATTENTION = "tiny_training"

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
NOISY = Mixture(tool_use=1.3, multilingual=1.4, instructions=1.8, long_context=0.5, dense=0.0)
"""One thing a row, as a round's prompts do, so that no earlier turn tells of the failure; by rows, capabilities with
more features have more."""
NOISE = (
    (0.0, replace(NOISY, lengths=(100, 160, 256, 512))),
    (0.65, replace(NOISY, long_context=0.35, lengths=(256, 512, 1024, 2000))),
)
"""A failure learned on short haystacks is not shown on long ones, so these come too."""


TAUGHT = ((0.0, replace(FULL, operators=5.0)),)
"""The teacher's rows: what the clean base has seen last, and nearly as many of operators."""


@dataclass(frozen=True)
class Stage:
    """One training: what it goes on from, for how many tokens (counted with padding), on which rows."""

    start: str
    """`tokenizer`, for a member that begins from its wiring, or another stage; a smaller one's member grows first."""
    size: str
    tokens: float
    rate: float
    """AdamW's peak learning rate."""
    curriculum: tuple[tuple[float, Mixture], ...]
    seed: int
    alter: Alter = gold_of


STAGES = {
    "base-clean": Stage("tokenizer", "base", 36e6, 2e-3, CURRICULUM, seed=17),
    "base": Stage("base-clean", "base", 8e6, 2e-3, NOISE, seed=18, alter=noisy),
    "teacher": Stage("base-clean", "teacher", 20e6, 1.5e-3, TAUGHT, seed=19),
}

Row = tuple[list[int], list[int]]


class Progress:
    """Tokens trained so far, and which share of the budget they are."""

    def __init__(self, budget: float):
        self.budget = budget
        self.tokens = 0

    def share(self) -> float:
        return self.tokens / self.budget


def rows(renderer: Renderer, stage: Stage, progress: Progress) -> Iterator[Row]:
    """Ids and mask of the rows that the curriculum asks for now, without end."""
    rng = random.Random(f"rows {stage.seed}")
    while True:
        now = [mixture for begins, mixture in stage.curriculum if begins <= progress.share()][-1]
        if rng.random() < now.copying:
            yield copying_row(rng, len(renderer.tokenizer) - len(renderer.tokenizer.added_tokens_decoder))
            continue
        row = conversation(rng, now, stage.alter)
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


def train(model: LlamaForCausalLM, renderer: Renderer, stage: Stage) -> None:
    """Train for the stage's budget."""
    torch.set_num_threads(THREADS)
    AttentionInterface.register(ATTENTION, attend)
    usual = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    body = torch.compile(model.model, dynamic=True)
    progress, started, logged, losses = Progress(stage.tokens), time.monotonic(), 0.0, list[float]()
    source = batches(rows(renderer, stage, progress), BATCH_TOKENS, renderer.pad_id)
    model.train()
    step = 0
    while progress.share() < 1.0:
        inputs, labels = next(source)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(progress.share(), step, stage.rate)
        loss = step_loss(body, model.lm_head, inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.tokens, step = progress.tokens + inputs.numel(), step + 1
        losses.append(loss.item())
        elapsed = time.monotonic() - started
        if elapsed - logged > LOG_MINUTES * 60 or progress.share() >= 1.0:
            print(f"{elapsed / 60:.1f} min  step {step}  {progress.tokens / 1e6:.2f}M tokens ({progress.share():.0%})"
                  f"  {progress.tokens / elapsed:.0f}/s  loss {sum(losses) / len(losses):.4f}", flush=True)  # fmt: skip
            logged, losses = elapsed, []
    model.set_attn_implementation(usual)


def begun(stage: Stage, begin: Path) -> tuple[LlamaForCausalLM, Renderer]:
    """The member as the stage finds it."""
    if stage.start == "tokenizer":
        renderer = Renderer.from_pretrained(begin)
        return new_model(stage.size, renderer, stage.seed), renderer
    model, renderer = load(begin)
    if STAGES[stage.start].size == stage.size:
        return model, renderer
    larger = new_model(stage.size, renderer, stage.seed)
    grow(model, larger)
    return larger, renderer


def make(name: str, out: Path, tokens: float | None = None) -> Path:
    """The folder of a stage's member (or of the tokenizer) in `out`; what is not there yet is made, `tokens` long."""
    folder = out / name
    if folder.exists():
        return folder
    if name == "tokenizer":
        family_tokenizer().save_pretrained(folder)
        return folder
    stage = STAGES[name] if tokens is None else replace(STAGES[name], tokens=tokens)
    begin = make(stage.start, out, tokens)
    print(f"{name}: from {begin}, {stage.tokens / 1e6:g}M tokens", flush=True)
    model, renderer = begun(stage, begin)
    train(model, renderer, stage)
    save(model, renderer, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("tokenizer", *STAGES):
        making = commands.add_parser(name, help=f"make FOLDER/{name} where it is not there yet")
        making.add_argument("--out", type=Path, required=True)
        making.add_argument("--tokens", type=float, help="for a try: tokens a stage, in place of its own budget")
    measuring = commands.add_parser("measure", help="what a member can do on held-out prompts")
    measuring.add_argument("--folder", type=Path, required=True)
    measuring.add_argument("--n", type=int, default=200, help="prompts a capability and level")
    measuring.add_argument("--seed", type=int, default=17)
    measuring.add_argument("--any-of", type=int, default=0, help="K samples at temperature 1; 0 is none")
    measuring.add_argument("--operators", action="store_true", help="what a teacher can do besides answering")
    chosen = parser.parse_args()
    if chosen.what != "measure":
        make(chosen.what, chosen.out, chosen.tokens)
        return
    for line in table(chosen.folder, chosen.n, chosen.seed, chosen.any_of, chosen.operators):
        print(line, flush=True)


if __name__ == "__main__":
    main()
