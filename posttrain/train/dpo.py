"""DPO as in Llama 3 (4.1.4): TRL's DPOTrainer with our preparation, collator and loss.

The reference model's log-probabilities are read from the `reference` stage or, without one, computed once before the
policy is loaded; it is never in memory beside the policy.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer

from posttrain.chat import Renderer
from posttrain.data.rows import Pair
from posttrain.engines.lists import inputs_of
from posttrain.engines.loading import Loaded
from posttrain.stages import Job
from posttrain.train.batches import Listed, lists_of, preference_mask, token_logprobs
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.dpo_spec import TOGETHER
from posttrain.train.losses import dpo_loss, length_normalised_nll, masked_sum, token_kl
from posttrain.train.reference import KEPT, load, with_reference
from posttrain.train.reporter import WINDOW
from posttrain.train.trainer import GlobalBatchMixin, list_trainer, load_policy, train
from posttrain.train.trl_loss import trl_loss

__all__ = ["PreferenceTrainer", "load", "preference_trainer", "run"]

SHOWN = {
    "rewards/chosen": "reward_chosen", "rewards/rejected": "reward_rejected", "rewards/margin": "margin",
    "rewards/accuracy": "accuracy", "logps/chosen": "chosen_logprob", "logps/chosen_change": "chosen_logprob_change",
    "kl": "kl", "length/chosen": "chosen_tokens", "length/rejected": "rejected_tokens",
}  # fmt: skip
"""Of the log, what the summary has by capability, and under which name."""
FALL = 0.1
"""Nats an answer by which the chosen answers' log-probability has to have fallen to be worth a sentence."""


class PreferenceTrainer(GlobalBatchMixin, DPOTrainer):
    """DPOTrainer on lists of answers with stored reference log-probabilities. `settings` is the stage's DpoConfig."""

    kept = KEPT

    def __init__(self, *args: Any, **options: Any):
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # set by accelerate's launcher
            options["ref_model"] = _nothing_to_load()
        super().__init__(*args, **options)
        self.ref_model = None

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Preference term + nll_weight · NLL of the chosen answer per token, summed over the pairs."""
        marks, better = inputs["marks"], inputs["pairs"][:, 0]
        logprobs = token_logprobs(model, inputs_of(model, inputs, logits_to_keep=1), marks > 0)
        preference = self.preference(inputs, logprobs)
        nll = length_normalised_nll(logprobs, marks > 0)[better]
        self._note(inputs, logprobs.detach(), preference, nll)
        return self.share((preference + self.settings.nll_weight * nll).sum(), num_items_in_batch)

    def preference(self, inputs: dict[str, Tensor], logprobs: Tensor) -> Tensor:
        """The preference term of each pair; of another loss than DPO's their mean, as often as there are pairs."""
        pairs, reference = inputs["pairs"], inputs["reference"]
        mask = preference_mask(inputs["marks"], self.settings.mask_format_tokens)
        if self.settings.loss == "sigmoid" or not len(pairs):
            (better, worse), sums = pairs.unbind(1), masked_sum(logprobs, mask)
            return dpo_loss(sums[better], sums[worse], reference[better], reference[worse], self.settings.beta)
        return trl_loss(self, logprobs, mask, pairs, reference).expand(len(pairs))

    def _note(self, inputs: dict[str, Tensor], logprobs: Tensor, preference: Tensor, nll: Tensor) -> None:
        """Of each pair: what the policy gives to its answers, how far that moved from the reference, and the terms."""
        marks, (better, worse), beta = inputs["marks"], inputs["pairs"].unbind(1), self.settings.beta
        mask = preference_mask(marks, self.settings.mask_format_tokens)
        sums, tokens = masked_sum(logprobs, mask), (marks > 0).sum(1)
        change = sums - inputs["reference"]
        kl = token_kl(change, mask.sum(1))
        values = {
            "rewards/chosen": beta * change[better],
            "rewards/rejected": beta * change[worse],
            "rewards/margin": beta * (change[better] - change[worse]),
            "rewards/accuracy": change[better] > change[worse],
            "logps/chosen": sums[better],
            "logps/rejected": sums[worse],
            "logps/chosen_change": change[better],
            "logps/rejected_change": change[worse],
            "kl": (kl[better] + kl[worse]) / 2,
            "length/chosen": tokens[better],
            "length/rejected": tokens[worse],
            "loss/preference": preference,
            "loss/nll": nll,
        }
        self.note(values, inputs["kinds"])


def _nothing_to_load() -> LlamaForCausalLM:
    """In place of a reference: under FSDP TRL would load and split one, to compute what is stored already."""
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1))


def run(job: Job) -> None:
    """Read pairs and the reference's log-probabilities, train from `init`, save. Raises UserError for no pairs, or if
    the preflight fails."""
    init = job.inputs["init"]
    proven = load(job, Renderer.from_pretrained(init))
    groups = tuple(sorted({pair.capability for pair, _ in proven}))
    lists = lists_of([example for _, example in proven])
    lists = with_reference(job, [_with_kinds(item, proven, groups) for item in lists])
    loaded = load_policy(job, init)
    trainer = preference_trainer(job, loaded, lists, groups)
    lines = train(job, trainer, [item.answers.longest for item in lists])
    pairs = sum(len(item.pairs) for item in lists)
    job.summary |= {"pairs": pairs, "prompts": len(lists), **summary(lines, groups)}
    if told := fall(job.summary):
        job.summary["warning"] = told
        job.log.warning("%s: %s", job.name, told)
    save_checkpoint(job, trainer, loaded.renderer, init, {"pairs": pairs, "prompts": len(lists)})


def _with_kinds(item: Listed, proven: Sequence[tuple[Pair, Any]], groups: Sequence[str]) -> Listed:
    return replace(item, kinds=[groups.index(proven[place][0].capability) for place in item.places])


def preference_trainer(job: Job, loaded: Loaded, lists: Sequence[Listed], groups: tuple[str, ...]) -> PreferenceTrainer:
    """The trainer of these lists, whose `kinds` are numbers in `groups`."""
    config = job.config
    trainer: PreferenceTrainer = list_trainer(
        job, loaded, lists, PreferenceTrainer, TrlArguments, together=config.loss in TOGETHER,
        precompute_ref_log_probs=True, loss_type=[config.loss], beta=config.beta,
        label_smoothing=config.label_smoothing,
    )  # fmt: skip
    trainer.groups = groups
    return trainer


def summary(lines: Sequence[dict[str, Any]], groups: Sequence[str]) -> dict[str, Any]:
    """Of a log: the first and the last step, and the means of the last ten steps, over all pairs and by capability."""
    ends = {"first": lines[0], "last": lines[-1]}
    names = ("rewards/margin", "rewards/accuracy", "logps/chosen_change")
    found: dict[str, Any] = {f"{SHOWN[name]}_{end}": line[name] for name in names for end, line in ends.items()}
    found["last_steps"] = last_steps(lines, "")
    found["by_capability"] = {group: last_steps(lines, f"/{group}") for group in groups}
    return found


def last_steps(lines: Sequence[dict[str, Any]], end: str) -> dict[str, float]:
    """Means over the pairs of the last ten steps that have any of the group whose names end so."""
    own = [line for line in lines if f"pairs{end}" in line][-WINDOW:]
    pairs = [line[f"pairs{end}"] for line in own]
    total = sum(pairs)
    means = {
        name: sum(n * line[f"{key}{end}"] for n, line in zip(pairs, own, strict=True)) / total
        for key, name in SHOWN.items()
    }
    return {"pairs": total, **means}


def fall(found: dict[str, Any]) -> str:
    """A sentence where the chosen answers became less likely than under the reference; else empty."""
    last = found["last_steps"]
    change = last["chosen_logprob_change"]
    if change > -FALL:
        return ""
    worst, of_worst = min(
        ((group, own["chosen_logprob_change"]) for group, own in found["by_capability"].items()), key=lambda two: two[1]
    )
    return (
        f"the chosen answers became less likely: {-change:.2f} nats below the reference at the end, for answers of "
        f"{last['chosen_tokens']:.0f} tokens (most in {worst}, {-of_worst:.2f}); a larger nll_weight or beta, or a "
        "lower learning_rate, holds them"
    )
