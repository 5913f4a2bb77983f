"""Supervised fine-tuning: TRL's SFTTrainer on rows that our renderer tokenised and masked."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from trl import SFTConfig as TrlArguments
from trl import SFTTrainer

from posttrain.chat import Renderer
from posttrain.data.rows import Row
from posttrain.data.tables import iter_table
from posttrain.engines.loading import Loaded, choose_device
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import IGNORED, RowCollator, length, next_logprobs, render_row, token_logprobs
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.preflight import preflight
from posttrain.train.sequence import piece_of, row_tokens
from posttrain.train.trainer import GlobalBatchMixin, build, load_policy, read_inputs, train


class RowTrainer(GlobalBatchMixin, SFTTrainer):
    """SFTTrainer whose loss is the mean over the trained tokens of the global batch."""

    def items(self, part: dict[str, torch.Tensor]) -> int:
        return int((part["labels"][:, 1:] != IGNORED).sum())

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Sum of −log p over the micro-batch's trained tokens, over those of the global batch (Llama 3, 4.1.3)."""
        if self.job.launch.sequence > 1:
            piece, labels = piece_of(inputs, self.job.launch, self.accelerator.process_index)
            logprobs = next_logprobs(model, {**piece, "use_cache": False}, labels)
        else:
            rows = {name: value for name, value in inputs.items() if name not in ("labels", "tokens")}
            logprobs = token_logprobs(model, {**rows, "use_cache": False}, inputs["labels"] != IGNORED)
        return self.share(-logprobs.sum(), num_items_in_batch)


def run(job: Job) -> None:
    """Read rows, train from `init`, write a checkpoint. Raises UserError for no rows, or a preflight that fails."""
    init = job.inputs["init"]
    examples = [example for _, example in load(job, Renderer.from_pretrained(init))]
    loaded = load_policy(job, init)
    attend(job, loaded)
    trainer = row_trainer(job, loaded, examples)
    train(job, trainer, [length(example) for example in examples])
    trained = sum(label != IGNORED for example in examples for label in example["labels"])
    job.summary |= {"rows": len(examples), "trained_tokens": trained}
    save_checkpoint(job, trainer, loaded.renderer, init, {"rows": len(examples), "trained tokens": trained})


def attend(job: Job, loaded: Loaded) -> None:
    """Let the model attend with the kernel that the recipe names; raises UserError where this machine cannot."""
    name = job.config.attention
    if name == "sdpa":
        return
    if choose_device(job.machine).type != "cuda":
        raise UserError(f"{job.name}: attention {name} needs CUDA, and machine.device is the CPU; use sdpa")
    try:
        loaded.model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{job.name}: attention {name} is not to be had here ({reason}); install it, or use sdpa"
        ) from error


def row_trainer(job: Job, loaded: Loaded, examples: Sequence[dict[str, Any]]) -> RowTrainer:
    """The trainer of these rendered rows."""
    limit = row_tokens(job.launch, job.machine.train_tokens)
    collator = RowCollator(examples, loaded.renderer.pad_id, limit, job.config.packing)
    skip = {"skip_prepare_dataset": True}
    trainer: RowTrainer = build(job, loaded, len(examples), collator, RowTrainer, TrlArguments, dataset_kwargs=skip)
    return trainer


def load(job: Job, renderer: Renderer) -> list[tuple[Row, dict[str, Any]]]:
    """The rows of all data folders, in the order they stand in, with their examples; the preflight proves them."""
    rows: list[Row] = [row for folder, _ in read_inputs(job, "data") for row in iter_table(folder, "rows")]
    if not rows:
        raise UserError(f"{job.name}: there is no row to train on; see what the stages before it dropped, and why")
    return preflight(job, renderer, rows, partial(render_row, renderer, train=job.config.train))
