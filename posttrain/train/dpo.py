"""DPO as in Llama 3 (4.1.4): TRL's DPOTrainer with our preparation, collator and loss.

The reference model's log-probabilities are computed once, chunk by chunk into a journal, before the policy is loaded.
"""

import gc
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig as TrlArguments
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from posttrain.chat import Renderer
from posttrain.data.rows import Pair
from posttrain.data.tables import iter_table
from posttrain.engines.loading import load_model
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import (
    length,
    micro_batch,
    model_inputs,
    preference_mask,
    refuse_long,
    render_pair,
    token_logprobs,
)
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.losses import dpo_loss, length_normalised_nll, masked_sum
from posttrain.train.trainer import GlobalBatchMixin, arguments, pair_collator, read_inputs, train

JOURNAL = "reference"


class PairTrainer(GlobalBatchMixin, DPOTrainer):
    """DPOTrainer on rendered pairs with stored reference log-probabilities. `settings` is the stage's DpoConfig."""

    def __init__(self, settings: Any, **options: Any):
        self.settings = settings
        super().__init__(**options)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def items(self, batch: dict[str, Tensor]) -> int:
        return len(batch["input_ids"]) // 2

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Preference term + nll_weight · NLL of the chosen answer per token, summed over the pairs."""
        mask = inputs["mask"]
        logprobs = token_logprobs(model, model_inputs(model, inputs, logits_to_keep=1), mask > 0)
        sums = masked_sum(logprobs, preference_mask(mask, self.settings.mask_format_tokens))
        chosen, rejected = sums[::2], sums[1::2]
        ref_chosen, ref_rejected = inputs["reference"].unbind(1)
        preference = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, self.settings.beta)
        nll = length_normalised_nll(logprobs[::2], mask[::2] > 0)
        self._note_rewards((chosen - ref_chosen).detach(), (rejected - ref_rejected).detach(), preference, nll)
        return self.share((preference + self.settings.nll_weight * nll).sum(), num_items_in_batch)

    def _note_rewards(self, chosen: Tensor, rejected: Tensor, preference: Tensor, nll: Tensor) -> None:
        beta = self.settings.beta
        self.note(
            **{
                "rewards/chosen": beta * chosen.mean().item(),
                "rewards/rejected": beta * rejected.mean().item(),
                "rewards/margin": beta * (chosen - rejected).mean().item(),
                "rewards/accuracy": (chosen > rejected).float().mean().item(),
                "logps/chosen_change": chosen.mean().item(),
                "loss/preference": preference.mean().item(),
                "loss/nll": nll.mean().item(),
            }
        )


def run(job: Job) -> None:
    """Read pairs, compute the reference, train from `init`, save. Raises UserError for no pairs or too long ones."""
    init = job.inputs["init"]
    examples = load_pairs(job, Renderer.from_pretrained(init))
    reference = reference_logprobs(job, examples)
    loaded = load_model(init, job.machine, dtype=torch.float32)
    refuse_long(examples, job.config.max_length or loaded.model.config.max_position_embeddings)
    dataset = Dataset.from_list([{**example, "reference": reference[example["id"]]} for example in examples])
    trainer = PairTrainer(
        settings=job.config,
        model=loaded.model,
        args=arguments(
            job, TrlArguments, len(examples), rows_each=2, remove_unused_columns=False, precompute_ref_log_probs=True
        ),
        train_dataset=dataset,
        data_collator=pair_collator(loaded),
        processing_class=loaded.renderer.tokenizer,
    )
    lines = train(job, trainer, examples)
    job.summary |= {"pairs": len(examples), **_first_and_last(lines)}
    save_checkpoint(job, loaded.model, loaded.renderer, init, {"pairs": len(examples)})


def load_pairs(job: Job, renderer: Renderer) -> list[dict[str, Any]]:
    """The pairs of all folders, rendered, each once, in sorted id order."""
    pairs: dict[str, Pair] = {
        pair.id: pair
        for folder, table in read_inputs(job, "pairs", "preferences")
        for pair in iter_table(folder, table)
    }
    if not pairs:
        raise UserError(f"{job.name}: there is no pair to train on; see what the stages before it dropped, and why")
    return [render_pair(renderer, pairs[pair_id]) for pair_id in sorted(pairs)]


def reference_logprobs(job: Job, examples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Pair id → the reference's log-probabilities of chosen and rejected, summed as the preference term does."""
    journal, size = job.journal(JOURNAL), job.config.chunk
    chunks = {f"{start:08d}": examples[start : start + size] for start in range(0, len(examples), size)}
    missing = [chunk for chunk in chunks if chunk not in journal]
    if missing:
        loaded = load_model(job.inputs["reference"], job.machine, dtype=torch.float32)
        refuse_long(examples, job.config.max_length or loaded.model.config.max_position_embeddings)
        add_fused_lm_head(loaded.model)
        for chunk in missing:
            journal.append(chunk, _reference_chunk(job, loaded, chunks[chunk]))
            done = min(len(examples), (int(chunk) + size))
            job.progress(done, len(examples), "reference pairs")
        del loaded
        gc.collect()
    job.tokens += sum(len(example[f"{side}_ids"]) for example in examples for side in ("chosen", "rejected"))
    return {row["id"]: row["logprobs"] for row in journal.rows(list(chunks))}


@torch.no_grad()
def _reference_chunk(job: Job, loaded: Any, pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Journal rows of one chunk, computed in batches of similar length."""
    collate, rows = pair_collator(loaded), []
    size = micro_batch(job.config.batch_size, job.machine, rows_each=2)
    by_length = sorted(pairs, key=lambda pair: (length(pair), pair["id"]))
    for start in range(0, len(by_length), size):
        part = by_length[start : start + size]
        batch = {name: value.to(loaded.device) for name, value in collate(part).items()}
        # The same mixed precision as the policy's in training, so that equal models give equal log-probabilities.
        with torch.autocast("cuda", torch.bfloat16, enabled=loaded.device.type == "cuda"):
            inputs = model_inputs(loaded.model, batch, logits_to_keep=1)
            logprobs = token_logprobs(loaded.model, inputs, batch["mask"] > 0)
        sums = masked_sum(logprobs, preference_mask(batch["mask"], job.config.mask_format_tokens))
        found = sums.view(-1, 2).tolist()
        rows += [{"id": pair["id"], "logprobs": logprobs} for pair, logprobs in zip(part, found, strict=True)]
    return rows


def _first_and_last(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Rewards and log-probabilities of the first and the last step, as the report shows them."""
    shown = {"margin": "rewards/margin", "accuracy": "rewards/accuracy", "chosen_logprob_change": "logps/chosen_change"}
    ends = {"first": lines[0], "last": lines[-1]}
    return {f"{name}_{end}": line[key] for name, key in shown.items() for end, line in ends.items()}
