"""Rows longer than a device holds: several processes share each row, everyone with a piece of its tokens.

Who computes attention over the pieces is accelerate's: ring attention between GPUs under FSDP 2 (`cp_size`), or
DeepSpeed's Ulysses, which deals heads in place of tokens (`sp_size`; Jacobs et al. 2023, 2309.14509). Ours is who gets
which row, and a loss that is the one of whole rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from posttrain.errors import UserError
from posttrain.machine import Launch
from posttrain.train.batches import IGNORED


def deals_rows(launch: Launch) -> bool:
    """Whether accelerate gives the processes of a row the same rows by itself, as it does for ring attention."""
    return launch.sequence == 1 or launch.sharding == "fsdp2"


def row_tokens(launch: Launch, train_tokens: int) -> int:
    """Tokens of whole rows in a micro-batch: those of each of the row's processes; one row at a time for Ulysses."""
    return train_tokens * launch.sequence if deals_rows(launch) else 1


def make_ready(launch: Launch, trainer: Any) -> None:
    """Let DeepSpeed take rows from us; raises UserError for heads that cannot be dealt. Nothing for ring attention."""
    if deals_rows(launch):
        return
    heads = trainer.model.config.num_attention_heads
    if heads % launch.sequence:
        raise UserError(
            f"launch {launch.name}: {heads} attention heads cannot be dealt to the {launch.sequence} processes of a "
            f"row; give an sp_size that divides {heads}"
        )
    from deepspeed import comm

    if not comm.is_initialized():  # on the CPU accelerate leaves it to the engine, which asks for its groups before
        comm.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False)
    accelerator = trainer.accelerator
    # Its shape check wants micro-batches of one size, so each is one row; its loader would gather other rows than ours.
    accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    accelerator.deepspeed_ulysses_dl_adapter = lambda loader, model: loader


def piece_of(inputs: dict[str, Tensor], launch: Launch, process: int) -> tuple[dict[str, Tensor], Tensor]:
    """This process's piece of whole rows: `input_ids` and `position_ids`, and the labels of the tokens after them, each
    (B, T / n).

    Ring attention has made its own, in which the pieces are dealt so that all have as much to attend to.
    """
    if "shift_labels" in inputs:
        return {name: inputs[name] for name in ("input_ids", "position_ids")}, inputs["shift_labels"]
    ids_BT = inputs["input_ids"]
    places_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(ids_BT.shape)
    labels_BT = pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
    size = ids_BT.shape[1] // launch.sequence
    begin = process % launch.sequence * size
    ids, places, labels = (value[:, begin : begin + size].contiguous() for value in (ids_BT, places_BT, labels_BT))
    return {"input_ids": ids, "position_ids": places}, labels
