"""What our trainers add to TRL's: a fixed order of rows, micro-batches that cost least, and one loss over the whole
global batch of all processes."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PrinterCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from posttrain.engines.lists import LENGTH_STEP
from posttrain.engines.loading import Loaded, choose_device
from posttrain.errors import Interrupted, PosttrainError, StageFailed, UserError
from posttrain.machine import Launch
from posttrain.stages import Job
from posttrain.train.adapters import adapters, four_bit
from posttrain.train.batches import GlobalBatches, ListCollator, Listed, idle
from posttrain.train.guard import check_launch
from posttrain.train.reporter import LOG_FILE, Reporter, read_lines, token_flops
from posttrain.train.resume import CheckpointMixin, folder_of, newest_whole
from posttrain.train.sequence import deals_rows, make_ready
from posttrain.train.split import load_own

Arguments = TypeVar("Arguments")
CPU_IS_FULL = "can't allocate memory"
"""What torch says where the CPU has no memory left, in an error that has no class of its own."""


class GlobalBatchMixin(CheckpointMixin):
    """Mixed into a TRL trainer whose `compute_loss` returns a sum over a micro-batch divided by `num_items_in_batch`.

    It gets its share of a global batch whole, as `{"parts": [micro-batch, ...]}`, cut by cost. Which rows a step sees
    is then up to `batch_size` and the seed alone, and parts of any size, on any number of processes, add up to one
    loss.
    """

    loss_is_scaled_for_ga = True
    order: GlobalBatches
    args: Any
    settings: Any
    """The stage's config."""
    token_flops = 0
    """What a token costs, forward and backward, for the MFU."""
    kept = 0
    """As in `ListCollator`."""
    groups: tuple[str, ...] = ()
    """Names of what the log tells apart, such as capabilities."""

    def __init__(self, *args: Any, **options: Any):
        self._noted: tuple[str, ...] = ()
        self._sums: torch.Tensor | None = None
        super().__init__(*args, **options)

    def items(self, part: dict[str, torch.Tensor]) -> int:
        """What the loss of a micro-batch is a sum over: pairs, or trained tokens."""
        return len(part["pairs"])

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch; gradients are exchanged with the last one."""
        parts, losses = inputs["parts"], []
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            # DeepSpeed steps inside its backward pass and reads this; DDP exchanges gradients outside no_sync.
            self.accelerator.gradient_state._set_sync_gradients(last)
            with nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        return torch.stack(losses).sum()

    def _get_train_sampler(self, train_dataset: Any = None) -> GlobalBatches:
        return self.order

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """The items of the global batch; every process also gets as many micro-batches as the one with most."""
        parts = batch_samples[0]["parts"]
        own = torch.tensor([sum(self.items(part) for part in parts), len(parts)], device=device)
        found = self.accelerator.gather(own).view(-1, 2)
        parts += [idle(parts[0]) for _ in range(int(found[:, 1].max()) - len(parts))]
        total: torch.Tensor = found[:, 0].sum() // self.job.launch.sequence
        return total

    def share(self, total: torch.Tensor, items: Any) -> torch.Tensor:
        """A micro-batch's part of the global mean, times the processes, over which gradients are averaged."""
        return total / items * self.accelerator.num_processes

    def note(self, values: dict[str, torch.Tensor], kinds: torch.Tensor | None = None) -> None:
        """Put means over the pairs of the global batch into the next line of the log: `name`, and of each group
        `name/group`; `pairs` and `pairs/group` say how many they were.

        `values` hold a number for each pair of a micro-batch (N), `kinds` (N) the number of its group in `groups`.
        """
        found = torch.stack([value.detach().float() for value in values.values()])
        table = torch.cat([torch.ones_like(found[:1]), found]).cpu().double()
        of_group = [table[:, kinds.cpu() == n].sum(1) for n in range(len(self.groups)) if kinds is not None]
        sums = torch.stack([table.sum(1), *of_group])
        self._noted, self._sums = tuple(values), sums if self._sums is None else self._sums + sums

    def _means(self, sums: list[list[float]]) -> dict[str, float]:
        """Of sums over all pairs and over each group's; a group without any has none."""
        means: dict[str, float] = {}
        for group, (pairs, *values) in zip(("", *self.groups), sums, strict=True):
            end = f"/{group}" if group else ""
            if pairs:
                means |= {f"pairs{end}": int(pairs)}
                # Some losses are of a whole micro-batch (posttrain/train/trl_loss.py), and of no group in it.
                told = {n: v for n, v in zip(self._noted, values, strict=True) if not (end and n.startswith("loss/"))}
                means |= {f"{name}{end}": value / pairs for name, value in told.items()}
        return means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        sums, self._sums = self._sums, None
        if sums is not None:
            if self.accelerator.num_processes > 1:
                sums = self.accelerator.reduce(sums.to(self.accelerator.device), "sum")
            logs |= self._means(sums.tolist())
        super().log(logs, start_time)  # type: ignore[misc]

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        own = torch.stack([part["tokens"] for part in inputs["parts"]]).sum()
        self.state.num_input_tokens_seen += int(self.accelerator.gather(own).sum()) // self.job.launch.sequence

    def get_sp_size(self) -> int:
        """To transformers: every process reads rows; who shares them is up to `posttrain.train.sequence`."""
        return 1

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """TRL tells its makers of every training; a run on private data makes no call of its own."""


def arguments(job: Job, kind: Callable[..., Arguments], rows: int, **more: Any) -> Arguments:
    """TRL's arguments from a TrainingConfig, for `rows` items; transformers itself saves and cuts nothing.

    Raises UserError for a global batch that cannot be dealt to the processes.
    """
    config, cuda, groups = job.config, choose_device(job.machine).type == "cuda", job.launch.groups
    if config.batch_size % groups:
        raise UserError(
            f"{job.name}: batch_size {config.batch_size} cannot be dealt to {groups} processes; "
            f"make it a multiple of {groups}"
        )
    offloads = config.activations == "offload"
    if offloads and not cuda:
        raise UserError(f"{job.name}: activations: offload moves them from a CUDA device; on the CPU use recompute")
    steps = config.epochs * math.ceil(rows / config.batch_size)
    seed = job.seed % 2**32  # numpy takes no larger one
    found = kind(
        output_dir=str(job.folder), save_strategy="no", report_to=list(config.report_to) or "none", disable_tqdm=True,
        per_device_train_batch_size=config.batch_size // groups, gradient_accumulation_steps=1,
        num_train_epochs=config.epochs, learning_rate=config.learning_rate,
        lr_scheduler_type=_schedule(config.schedule),
        # Rounded down: a warm-up step has the rate 0 first, and a short training has no step to lose.
        warmup_steps=int(config.warmup_ratio * steps),
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, seed=seed, data_seed=seed,
        logging_steps=1, logging_nan_inf_filter=False, include_num_input_tokens_seen="non_padding",
        use_cpu=not cuda, bf16=cuda, dataloader_pin_memory=cuda,
        gradient_checkpointing=recomputes(job, cuda), activation_offloading=offloads,
        # Every parameter has a part in every micro-batch, idle ones included.
        ddp_find_unused_parameters=False,
        max_length=None, pad_to_multiple_of=LENGTH_STEP, remove_unused_columns=False, **more,
    )  # fmt: skip
    # One process has one device. transformers would take all it sees, multiply the batch and copy the model to each.
    found._n_gpu = min(1, found.n_gpu)  # type: ignore[attr-defined]
    return found


def recomputes(job: Job, cuda: bool) -> bool:
    """Whether the backward pass computes a layer anew from its input."""
    chosen = job.config.activations
    return cuda if chosen == "auto" else chosen != "keep"


def _schedule(name: str) -> str:
    return "constant_with_warmup" if name == "constant" else name


def build(
    job: Job, loaded: Loaded, items: int, collator: Any, kind: type[Any], settings: Callable[..., Any],
    **more: Any,
) -> Any:  # fmt: skip
    """A trainer `kind` with TRL's `settings` class, which `more` goes to. `collator` makes micro-batches of numbers
    below `items`; a number of `items` itself fills up a global batch where several processes share it.

    Raises UserError where a package that `report_to` names is missing.
    """
    _check_trackers(job)
    trainer = kind(
        model=loaded.model,
        args=arguments(job, settings, items, **more),
        train_dataset=Dataset.from_dict({"item": range(items + (job.launch.processes > 1))}),
        data_collator=collator,
        processing_class=loaded.renderer.tokenizer,
        peft_config=adapters(job.config.lora, loaded.model),
    )
    trainer.settings, trainer.job = job.config, job
    return trainer


def _check_trackers(job: Job) -> None:
    for name in job.config.report_to:
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{job.name}: report_to names {name}, which is not to be had here ({reason})") from error


def list_trainer(
    job: Job, loaded: Loaded, lists: Sequence[Listed], kind: type[Any], settings: Callable[..., Any],
    together: bool = False, **more: Any,
) -> Any:  # fmt: skip
    """A trainer `kind` with TRL's `settings` class, whose items are the lists; `more` goes to the settings, `together`
    to the collator."""
    limit, pad_id = job.machine.train_tokens, loaded.renderer.pad_id
    share = can_share(loaded, job.launch) and not recomputes(job, loaded.device.type == "cuda")
    collator = ListCollator(lists, pad_id, limit, share, kind.kept, together)
    return build(job, loaded, len(lists), collator, kind, settings, **more)


def load_policy(job: Job, init: Any) -> Loaded:
    """The model to train, in float32 or for QLoRA in 4 bits. What splits the weights places them too: until then they
    wait in CPU memory."""
    if job.config.lora and job.config.lora.four_bit:
        return four_bit(init)
    return load_own(job, init, torch.float32)


def can_share(loaded: Loaded, launch: Launch) -> bool:
    """Whether training may keep a cache of the prompt; on CUDA activations are recomputed, which leaves none.

    Over a shared prompt a micro-batch is two passes of the model. Where weights are split all processes take part in
    each, and another one's micro-batch may be one.
    """
    return loaded.device.type == "cpu" and not launch.splits_weights


def train(job: Job, trainer: Any, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Train on items of these lengths in the fixed order and return the log's lines; sets `job.tokens`.

    Goes on from the newest whole checkpoint of a run that was stopped or killed. Raises Interrupted when asked to stop,
    UserError when the processes are not those of the launch or the disk is full, StageFailed for a loss that is no
    number or runs away, or when the device's memory is full.
    """
    check_launch(job.launch, trainer.accelerator)
    make_ready(job.launch, trainer)
    trainer.order = GlobalBatches(lengths, job.config.batch_size, job.seed, job.launch.groups, _copies(job))
    trainer.token_flops = token_flops(trainer.model)
    begun = _newest(job)
    reporter = Reporter(job, trainer, read_lines(begun / LOG_FILE) if begun else [])
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporter)
    try:
        trainer.train(resume_from_checkpoint=str(begun) if begun else None)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and CPU_IS_FULL not in str(error):
            raise
        advice = memory_advice(job, trainer.accelerator.device.type == "cuda", max(lengths))
        raise StageFailed(f"{job.name}: the device's memory is full; {advice}") from error
    state, lines = trainer.state, reporter.lines
    if reporter.stopped:
        raise Interrupted(f"stopped at {state.global_step} of {state.max_steps} steps")
    job.tokens += state.num_input_tokens_seen
    job.summary |= {"steps": len(lines), "loss_first": lines[0]["loss"], "loss_last": lines[-1]["loss"]}
    return lines


def memory_advice(job: Job, cuda: bool, longest: int) -> str:
    """Which setting takes least and gives most, where the longest item has so many tokens."""
    tokens = job.machine.train_tokens
    if tokens > longest:
        return f"halve machine.train_tokens ({tokens:,}) to {tokens // 2:,}, and so what a pass needs"
    if not recomputes(job, cuda):
        return "give activations: recompute, which leaves each layer's input only"
    if cuda and job.config.activations != "offload":
        return "give activations: offload, which moves what is kept of a pass to CPU memory"
    return (
        f"one item of {longest:,} tokens fills it: halve max_length, split the weights (launch: zero3 or fsdp2), or "
        "let processes share rows (docs/training.md, Long rows)"
    )


def _copies(job: Job) -> int:
    """How often each row is read, where accelerate does not give the processes of a row the same rows itself."""
    return 1 if deals_rows(job.launch) else job.launch.sequence


def _newest(job: Job) -> Path | None:
    """The checkpoint to go on from; the main process looks, so that all go on from the same."""
    found: list[Any] = [None]
    if job.main:
        try:
            found = [newest_whole(folder_of(job), job.launch, job.log.warning)]
        except PosttrainError as error:
            found = [error]
    if job.launch.processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], PosttrainError):
        raise found[0]
    newest: Path | None = found[0]
    return newest


def read_inputs(job: Job, *names: str) -> list[tuple[Path, str]]:
    """`(folder, input name)` of all folders of the named inputs, whether the plan gave one or a list."""
    found = []
    for name in names:
        value = job.inputs.get(name, [])
        found += [(folder, name) for folder in (value if isinstance(value, list) else [value])]
    return found
