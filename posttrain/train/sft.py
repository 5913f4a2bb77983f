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
from posttrain.engines.loading import Loaded
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.batches import IGNORED, RowCollator, length, render_row, token_logprobs
from posttrain.train.checkpoint import save_checkpoint
from posttrain.train.preflight import preflight
from posttrain.train.trainer import GlobalBatchMixin, build, load_policy, read_inputs, train


class RowTrainer(GlobalBatchMixin, SFTTrainer):
    """SFTTrainer whose loss is the mean over the trained tokens of the global batch."""

    def items(self, part: dict[str, torch.Tensor]) -> int:
        return int((part["labels"][:, 1:] != IGNORED).sum())

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Sum of −log p over the micro-batch's trained tokens, over those of the global batch (Llama 3, 4.1.3)."""
        wanted = inputs["labels"] != IGNORED
        rows = {name: value for name, value in inputs.items() if name not in ("labels", "tokens")}
        logprobs = token_logprobs(model, {**rows, "use_cache": False}, wanted)
        return self.share(-logprobs.sum(), num_items_in_batch)


def run(job: Job) -> None:
    """Read rows, train from `init`, write a checkpoint. Raises UserError for no rows, or a preflight that fails."""
    init = job.inputs["init"]
    examples = [example for _, example in load(job, Renderer.from_pretrained(init))]
    loaded = load_policy(job, init)
    trainer = row_trainer(job, loaded, examples)
    train(job, trainer, [length(example) for example in examples])
    trained = sum(label != IGNORED for example in examples for label in example["labels"])
    job.summary |= {"rows": len(examples), "trained_tokens": trained}
    save_checkpoint(job, trainer, loaded.renderer, init, {"rows": len(examples), "trained tokens": trained})


def row_trainer(job: Job, loaded: Loaded, examples: Sequence[dict[str, Any]]) -> RowTrainer:
    """The trainer of these rendered rows."""
    collator = RowCollator(examples, loaded.renderer.pad_id, job.machine.train_tokens, job.config.packing)
    skip = {"skip_prepare_dataset": True}
    trainer: RowTrainer = build(job, loaded, len(examples), collator, RowTrainer, TrlArguments, dataset_kwargs=skip)
    return trainer


def load(job: Job, renderer: Renderer) -> list[tuple[Row, dict[str, Any]]]:
    """The rows of all data folders, in the order they stand in, with their examples; the preflight proves them."""
    rows: list[Row] = [row for folder, _ in read_inputs(job, "data") for row in iter_table(folder, "rows")]
    if not rows:
        raise UserError(f"{job.name}: there is no row to train on; see what the stages before it dropped, and why")
    return preflight(job, renderer, rows, partial(render_row, renderer, train=job.config.train))
