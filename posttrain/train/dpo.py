"""DPO as in Llama 3 (4.1.4): TRL's DPOTrainer with our preparation, collator and loss.

The reference model's log-probabilities are computed once, chunk by chunk into a journal, before the policy is loaded.
"""

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from posttrain.chat import Renderer
from posttrain.data.rows import Pair
from posttrain.data.tables import iter_table, pair_table
from posttrain.engines.lists import inputs_of
from posttrain.engines.loading import Loaded, load_model
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import (
    Listed,
    list_batches,
    lists_of,
    preference_mask,
    render_pair,
    token_logprobs,
)
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.losses import dpo_loss, length_normalised_nll, masked_sum
from posttrain.train.preflight import preflight
from posttrain.train.trainer import GlobalBatchMixin, can_share, list_trainer, load_policy, read_inputs, train

JOURNAL = "reference"


class PreferenceTrainer(GlobalBatchMixin, DPOTrainer):
    """DPOTrainer on lists of answers with stored reference log-probabilities. `settings` is the stage's DpoConfig."""

    kept = 1

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Preference term + nll_weight · NLL of the chosen answer per token, summed over the pairs."""
        marks, (better, worse) = inputs["marks"], inputs["pairs"].unbind(1)
        logprobs = token_logprobs(model, inputs_of(model, inputs, logits_to_keep=1), marks > 0)
        sums = masked_sum(logprobs, preference_mask(marks, self.settings.mask_format_tokens))
        reference, beta = inputs["reference"], self.settings.beta
        preference = dpo_loss(sums[better], sums[worse], reference[better], reference[worse], beta)
        nll = length_normalised_nll(logprobs, marks > 0)[better]
        change = (sums - reference).detach()
        self._note(change[better], change[worse], preference.detach(), nll.detach())
        return self.share((preference + self.settings.nll_weight * nll).sum(), num_items_in_batch)

    def _note(self, chosen: Tensor, rejected: Tensor, preference: Tensor, nll: Tensor) -> None:
        """Of each pair: how far the answers' log-probabilities moved from the reference's, and the terms."""
        beta = self.settings.beta
        self.note_sums(
            len(chosen),
            **{
                "rewards/chosen": beta * chosen.sum(),
                "rewards/rejected": beta * rejected.sum(),
                "rewards/margin": beta * (chosen - rejected).sum(),
                "rewards/accuracy": (chosen > rejected).sum(),
                "logps/chosen_change": chosen.sum(),
                "loss/preference": preference.sum(),
                "loss/nll": nll.sum(),
            },
        )


def run(job: Job) -> None:
    """Read pairs, compute the reference, train from `init`, save. Raises UserError for no pairs, or if the
    preflight fails."""
    init = job.inputs["init"]
    lists = lists_of([example for _, example in load(job, Renderer.from_pretrained(init))])
    lists = reference_logprobs(job, lists)
    loaded = load_policy(job, init)
    trainer = list_trainer(job, loaded, lists, PreferenceTrainer, TrlArguments, precompute_ref_log_probs=True)
    lines = train(job, trainer, [item.answers.longest for item in lists])
    pairs = sum(len(item.pairs) for item in lists)
    job.summary |= {"pairs": pairs, "prompts": len(lists), **_first_and_last(lines)}
    save_checkpoint(job, trainer, loaded.renderer, init, {"pairs": pairs, "prompts": len(lists)})


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


def reference_logprobs(job: Job, lists: Sequence[Listed]) -> list[Listed]:
    """The lists with the reference's log-probability of each answer, summed as the preference term does."""
    journal, size = job.journal(JOURNAL), job.config.chunk
    chunks = {f"{start:08d}": lists[start : start + size] for start in range(0, len(lists), size)}
    missing = [chunk for chunk in chunks if chunk not in journal]
    if missing:
        loaded = load_model(job.inputs["reference"], job.machine, dtype=torch.float32)
        add_fused_lm_head(loaded.model)
        for chunk in missing:
            journal.append(chunk, _reference_chunk(job, loaded, chunks[chunk]))
            done = min(len(lists), int(chunk) + size)
            job.progress(done, len(lists), "reference prompts")
        del loaded
        gc.collect()
    job.tokens += sum(item.answers.tokens for item in lists)
    found = journal.rows(list(chunks))
    return [replace(item, reference=row["logprobs"]) for item, row in zip(lists, found, strict=True)]


@torch.no_grad()
def _reference_chunk(job: Job, loaded: Loaded, lists: Sequence[Listed]) -> list[dict[str, Any]]:
    """Journal rows of one chunk, in its order."""
    rows: dict[int, dict[str, Any]] = {}
    limit, pad_id = job.machine.batch_tokens, loaded.renderer.pad_id
    for numbers, batch in list_batches(lists, pad_id, limit, can_share(loaded), PreferenceTrainer.kept):
        part = {name: value.to(loaded.device) for name, value in batch.items()}
        # The same mixed precision as the policy's in training, so that equal models give equal log-probabilities.
        with torch.autocast("cuda", torch.bfloat16, enabled=loaded.device.type == "cuda"):
            logprobs = token_logprobs(loaded.model, inputs_of(loaded.model, part, logits_to_keep=1), part["marks"] > 0)
        sums = masked_sum(logprobs, preference_mask(part["marks"], job.config.mask_format_tokens))
        counts = [len(lists[i].answers.answers) for i in numbers]
        for i, found in zip(numbers, sums.split(counts), strict=True):
            rows[i] = {"logprobs": found.tolist()}
    return [rows[i] for i in range(len(lists))]


def _first_and_last(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Rewards and log-probabilities of the first and the last step, as the report shows them."""
    shown = {"margin": "rewards/margin", "accuracy": "rewards/accuracy", "chosen_logprob_change": "logps/chosen_change"}
    ends = {"first": lines[0], "last": lines[-1]}
    return {f"{name}_{end}": line[key] for name, key in shown.items() for end, line in ends.items()}
