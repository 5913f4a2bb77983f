"""The reward model, trained by TRL's RewardTrainer and measured on prompts it never saw."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, set_seed
from trl import RewardConfig as TrlArguments
from trl import RewardTrainer

from posttrain.chat import Renderer
from posttrain.checks.intervals import wilson
from posttrain.data.rows import Pair
from posttrain.data.tables import iter_table
from posttrain.engines.loading import Loaded, load_model
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import length, micro_batch, model_inputs, refuse_long, render_pair
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.losses import bradley_terry_loss
from posttrain.train.trainer import GlobalBatchMixin, arguments, pair_collator, read_inputs, train


class PreferenceTrainer(GlobalBatchMixin, RewardTrainer):
    """RewardTrainer on rendered pairs, whose prompts may be shared, with the mean loss over the global batch."""

    def items(self, batch: dict[str, torch.Tensor]) -> int:
        return len(batch["input_ids"]) // 2

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Bradley-Terry, summed over the pairs of the micro-batch, over those of the global batch."""
        chosen, rejected = rewards(model, inputs)
        margin = (chosen - rejected).detach()
        self.note(accuracy=(margin > 0).float().mean().item(), margin=margin.mean().item())
        return self.share(bradley_terry_loss(chosen, rejected).sum(), num_items_in_batch)


def run(job: Job) -> None:
    """Read preferences, train from the backbone of `init`, write a sequence classifier and its held-out pair accuracy.

    Raises UserError when no pair is left to train on or a pair is too long.
    """
    init = job.inputs["init"]
    loaded = reward_model(load_model(init, job.machine, dtype=torch.float32), job.seed)
    pairs = distinct_pairs(job, loaded.renderer)
    held = [pair for pair in pairs if is_held_out(pair, job.config.heldout_share)]
    kept = [pair for pair in pairs if not is_held_out(pair, job.config.heldout_share)]
    if not kept:
        raise UserError(f"{job.name}: no preference pair is left to train on; annotate a larger share, or more prompts")
    examples = [render_pair(loaded.renderer, pair) for pair in kept]
    measured = [render_pair(loaded.renderer, pair) for pair in held]
    refuse_long(examples + measured, job.config.max_length or loaded.model.config.max_position_embeddings)
    trainer = PreferenceTrainer(
        model=loaded.model,
        args=arguments(job, TrlArguments, len(examples), rows_each=2, remove_unused_columns=False),
        train_dataset=Dataset.from_list(examples),
        data_collator=pair_collator(loaded),
        processing_class=loaded.renderer.tokenizer,
    )
    lines = train(job, trainer, examples)
    job.summary |= {"pairs": len(examples), "accuracy_last_step": lines[-1]["accuracy"]}
    if held:
        job.summary["heldout"] = pair_accuracy(held, margins(job, loaded, measured))
    save_checkpoint(job, loaded.model, loaded.renderer, init, {"pairs": len(examples), "held-out pairs": len(held)})


def reward_model(loaded: Loaded, seed: int) -> Loaded:
    """A one-score classifier on the backbone of a language model; its head is drawn from the seed.

    It reads the last token that is not padding: the end-of-turn token, as the renderer's padding is another one.
    """
    config = loaded.model.config
    config.num_labels, config.pad_token_id = 1, loaded.renderer.pad_id
    loaded.renderer.tokenizer.pad_token_id = loaded.renderer.pad_id
    set_seed(seed % 2**32)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.base_model.load_state_dict(loaded.model.base_model.state_dict())
    return Loaded(model.to(loaded.device), loaded.renderer)


def rewards(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards of the chosen and of the rejected answers of a PairCollator's batch, shape (B) each."""
    scores = model(**model_inputs(model, batch)).logits.float().squeeze(-1)
    return scores[::2], scores[1::2]


def distinct_pairs(job: Job, renderer: Renderer) -> list[Pair]:
    """All pairs, each once, in sorted id order, without those that differ in white space only (Llama 3, 4.2.1)."""
    folders = read_inputs(job, "preferences")
    found: dict[str, Pair] = {pair.id: pair for folder, table in folders for pair in iter_table(folder, table)}
    pairs = [found[pair_id] for pair_id in sorted(found)]
    kept = [p for p in pairs if renderer.text(p.chosen).split() != renderer.text(p.rejected).split()]
    job.summary["drops"] = {"near_identical": len(pairs) - len(kept)}
    return kept


def is_held_out(pair: Pair, share: float) -> bool:
    """Whether the pair's prompt falls into the measured share: all pairs of a prompt do, or none, in every round."""
    number = int(hashlib.sha256(f"reward-heldout:{pair.prompt_id}".encode()).hexdigest()[:8], 16)
    return number < share * 2**32


@torch.no_grad()
def margins(job: Job, loaded: Loaded, examples: Sequence[dict[str, Any]]) -> list[float]:
    """Reward of chosen minus reward of rejected, in the order of `examples`, computed in batches of similar length."""
    loaded.model.eval()
    collate, found = pair_collator(loaded), [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: (length(examples[i]), i))
    size = micro_batch(job.config.batch_size, job.machine, rows_each=2)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        batch = {name: value.to(loaded.device) for name, value in collate([examples[i] for i in part]).items()}
        chosen, rejected = rewards(loaded.model, batch)
        for i, margin in zip(part, (chosen - rejected).tolist(), strict=True):
            found[i] = margin
    return found


def pair_accuracy(pairs: Sequence[Pair], found: Sequence[float]) -> dict[str, Any]:
    """`accuracy` with its 95% interval `low`, `high` and `n`, overall and `by_capability`; a tie counts as wrong."""
    right = [margin > 0 for margin in found]
    names = sorted({pair.capability for pair in pairs})
    of = {name: [ok for pair, ok in zip(pairs, right, strict=True) if pair.capability == name] for name in names}
    by_capability = {name: asdict(wilson(sum(ok), len(ok))) for name, ok in of.items()}
    return {**asdict(wilson(sum(right), len(right))), "by_capability": by_capability}
