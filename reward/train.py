"""The reward model, trained by TRL's RewardTrainer and measured on prompts it never saw."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardConfig as TrlArguments
from trl import RewardTrainer

from posttrain.chat import Renderer
from posttrain.data.rows import EDITED, Message, Pair
from posttrain.data.tables import iter_table
from posttrain.engines.loading import Loaded
from posttrain.engines.scoring import batch_rewards, load_scorer, rewards, room
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import Listed, lists_of, render_pair
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.losses import bradley_terry_loss
from posttrain.train.preflight import preflight
from posttrain.train.split import has_weights, without_weights
from posttrain.train.trainer import GlobalBatchMixin, build, list_trainer, load_policy, read_inputs, train
from reward.one_row import OneRowCollator, one_row_rewards, rows_of
from reward.probe import write_probe
from reward.report import Measured, report

REPORT = "report.json"
"""File of the artifact: how the model does on held-out pairs."""
MARGINS: dict[str | None, float] = {
    None: 1.0, EDITED: 1.0, "significantly_better": 1.0, "better": 2 / 3, "slightly_better": 1 / 3,
    "marginally_better": 0.0,
}  # fmt: skip
"""What share of the margin a rating asks for (Llama 2, 2307.09288, A.3.3)."""

Proven = tuple[Pair, dict[str, Any]]
"""A pair and its rendered example."""


class ListTrainer(GlobalBatchMixin, RewardTrainer):
    """RewardTrainer on lists of answers, with the mean loss over the pairs of the global batch."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Bradley-Terry, summed over the pairs of the micro-batch, over those of the global batch."""
        scores = (one_row_rewards if "ends" in inputs else batch_rewards)(model, inputs)
        better, worse = inputs["pairs"].unbind(1)
        gap = scores[better] - scores[worse]
        loss = bradley_terry_loss(gap, inputs.get("margins", 0.0)).sum()
        self.note({"accuracy": gap > 0, "margin": gap})
        return self.share(loss, num_items_in_batch)


def run(job: Job) -> None:
    """Read preferences, train from the backbone of `init`, write a sequence classifier and how it does on held-out
    pairs. Raises UserError when no pair is left to train on or the preflight fails.
    """
    init = job.inputs["init"]
    proven = load(job, Renderer.from_pretrained(init))
    held = [two for two in proven if is_held_out(two[0], job.config.heldout_share)]
    kept = [two for two in proven if not is_held_out(two[0], job.config.heldout_share)]
    if not kept:
        raise UserError(f"{job.name}: no preference pair is left to train on; annotate a larger share, or more prompts")
    lists = [_with_margins(job, item, kept) for item in lists_of([example for _, example in kept])]
    loaded = reward_model(load_policy(job, init), job.seed, has_weights(job))
    trainer, lengths = _trainer(job, loaded, lists)
    lines = train(job, trainer, lengths)
    pairs = sum(len(item.pairs) for item in lists)
    job.summary |= {"pairs": pairs, "prompts": len(lists), "accuracy_last_step": lines[-1]["accuracy"]}
    save_checkpoint(job, trainer, loaded.renderer, init, {"pairs": pairs, "held-out pairs": len(held)})
    if not job.main:
        return
    stored = load_scorer(job.folder, job.machine)
    write_probe(job.folder, stored, [pair for pair, _ in held or kept])
    if held:
        _measure(job, stored, held)


def _trainer(job: Job, loaded: Loaded, lists: Sequence[Listed]) -> tuple[Any, list[int]]:
    """The trainer, and the length of each list by which a global batch is ordered."""
    if not job.config.one_row:
        lengths = [item.answers.longest for item in lists]
        return list_trainer(job, loaded, lists, ListTrainer, TrlArguments), lengths
    rows = rows_of(lists, job.rng("one_row"), room(loaded))
    collator = OneRowCollator(lists, rows, loaded.renderer.pad_id, job.machine.train_tokens)
    return build(job, loaded, len(lists), collator, ListTrainer, TrlArguments), [len(row.ids) for row in rows]


def _with_margins(job: Job, item: Listed, proven: Sequence[Proven]) -> Listed:
    if not job.config.margin:
        return item
    return replace(item, margins=[job.config.margin * MARGINS[proven[place][0].rating] for place in item.places])


def _measure(job: Job, loaded: Loaded, held: Sequence[Proven]) -> None:
    """Write the report on held-out pairs, of the model as it is stored; its main numbers enter the summary."""
    found = report(measure(loaded, held, job.machine.batch_tokens))
    (job.folder / REPORT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    job.summary["heldout"] = {name: value for name, value in found.items() if name not in ("calibration", "histogram")}
    job.summary["heldout"]["ece"] = found["calibration"]["ece"]


def reward_model(loaded: Loaded, seed: int, weights: bool = True) -> Loaded:
    """A one-score classifier on the backbone of a language model; its head is drawn from the seed.

    Without `weights` the language model has none, and so has this (`posttrain.train.split`).

    It reads the last token that is not padding: the end-of-turn token, as the renderer's padding is another one.
    """
    config = loaded.model.config
    config.num_labels, config.pad_token_id = 1, loaded.renderer.pad_id
    loaded.renderer.tokenizer.pad_token_id = loaded.renderer.pad_id
    set_seed(seed % 2**32)
    build = partial(AutoModelForSequenceClassification.from_config, config, dtype=torch.float32)
    if not weights:
        return Loaded(without_weights(build), loaded.renderer)
    model = build()
    model.base_model.load_state_dict(loaded.model.base_model.state_dict())
    return Loaded(model.to(loaded.device), loaded.renderer)


def load(job: Job, renderer: Renderer) -> list[Proven]:
    """The distinct pairs with their examples, held-out ones too; the preflight proves them."""
    return preflight(job, renderer, distinct_pairs(job, renderer), partial(render_pair, renderer))


def distinct_pairs(job: Job, renderer: Renderer) -> list[Pair]:
    """All pairs, each once, in sorted id order, without those rated too low and those that differ in white space only
    (Llama 3, 4.2.1)."""
    folders = read_inputs(job, "preferences")
    found: dict[str, Pair] = {pair.id: pair for folder, table in folders for pair in iter_table(folder, table)}
    pairs = [found[pair_id] for pair_id in sorted(found)]
    rated = [pair for pair in pairs if pair.rating is None or pair.rating in job.config.ratings]
    kept = [pair for pair in rated if _said(renderer, pair.sides[0]) != _said(renderer, pair.sides[1])]
    job.summary["drops"] = {"near_identical": len(rated) - len(kept), "rating": len(pairs) - len(rated)}
    return kept


def _said(renderer: Renderer, side: Sequence[Message]) -> list[str]:
    """The words of all that the assistant says after the prompt."""
    return " ".join(renderer.text(message) for message in side if message["role"] == "assistant").split()


def is_held_out(pair: Pair, share: float) -> bool:
    """Whether the pair's prompt falls into the measured share: all pairs of a prompt do, or none, in every round."""
    number = int(hashlib.sha256(f"reward-heldout:{pair.prompt_id}".encode()).hexdigest()[:8], 16)
    return number < share * 2**32


def measure(loaded: Loaded, proven: Sequence[Proven], batch_tokens: int) -> list[Measured]:
    """The pairs with their rewards and lengths, each prompt computed once for all its answers."""
    lists = lists_of([example for _, example in proven])
    found = []
    for item, values in zip(lists, rewards(loaded, [item.answers for item in lists], batch_tokens), strict=True):
        tokens = [len(answer) for answer in item.answers.answers]
        for (better, worse), place in zip(item.pairs, item.places, strict=True):
            two = values[better], values[worse]
            found.append(Measured(proven[place][0], *two, tokens[better], tokens[worse]))
    return found
