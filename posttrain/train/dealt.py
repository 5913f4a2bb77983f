"""A forward pass over many chunks, dealt to the processes of a launch.

They go in step: each takes one chunk, then all have the rows of all. So a launched stage keeps one journal, that of the
main process, and whoever goes on, also with another number of processes, finds what is done. A model that the launcher
splits (`zero3`, `fsdp2`) is in parts in all of them, so that everyone takes part in every pass of every other.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, cast

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainingArguments

from posttrain.engines.loading import choose_device
from posttrain.errors import Interrupted
from posttrain.stages import Job
from posttrain.train.guard import check_launch

Held = TypeVar("Held")
Chunk = TypeVar("Chunk")
Found = TypeVar("Found")


def begin(job: Job) -> Accelerator:
    """Join the processes of the launch, as a trainer after it will find them.

    Raises UserError where they are not what the launch is to bring about.
    """
    cuda = choose_device(job.machine).type == "cuda"
    TrainingArguments(str(job.folder), use_cpu=not cuda, bf16=cuda, report_to="none")  # it starts their group
    accelerator = Accelerator(mixed_precision="bf16" if cuda else "no")
    check_launch(job.launch, accelerator)
    return accelerator


def of_main(value: Found) -> Found:
    """What the main process has in its place."""
    held = [value]
    broadcast_object_list(held)
    return held[0]


def most(count: int) -> int:
    """The largest count that any process has."""
    return int(max(gather_object([count])))


def dealt(
    job: Job, hold: Callable[[], Held], work: Callable[[Held, Chunk], Found], chunks: Mapping[str, Chunk]
) -> Iterator[tuple[str, Found]]:
    """`work(held, chunk)` of each chunk under its name, in their order, in every process; all have the same chunks.

    What a process holds is opened for the first chunk, so never for none. Raises Interrupted, in all processes, when
    one was asked to stop.
    """
    names, together = list(chunks), job.launch.processes
    held = hold() if chunks else None
    for start in range(0, len(names), together):
        own = names[start : start + together]
        # A process without a chunk of its own does another's again: it may hold a part of the model.
        name = own[min(job.launch.rank, len(own) - 1)]
        found = gather_object([(name, work(cast(Held, held), chunks[name]), job.stopping())])
        yield from ((name, rows) for name, rows, _ in found[: len(own)])
        if any(stopping for *_, stopping in found) and start + together < len(names):
            raise Interrupted(f"stopped at {start + together:,} of {len(names):,} chunks")
