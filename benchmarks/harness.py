"""What the benchmarks share: arguments, turns, the machine in words, the table, and where a result is written.

A benchmark is run from the checkout as `python benchmarks/NAME.py [--write]`; its result goes to results/NAME.md. This
module imports the standard library only, so that a contender in another environment can run a benchmark's own file.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

Way = TypeVar("Way")
Result = TypeVar("Result")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
QUIET = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of a contender in a process of its own: one thread, which sleeps where it waits."""

# A script's folder is first on its path; here it holds eval.py, which would hide the package `eval`.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, HERE)), str(HERE)]


def parser(doc: str, **sizes: int) -> argparse.ArgumentParser:
    """Arguments of a benchmark: a whole number for each of `sizes`, then --seed, --date and --write."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**sizes, "seed": sizes.get("seed", 0)}.items():
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="day that the result names")
    made.add_argument("--write", action="store_true", help="write the result to benchmarks/results/")
    return made


def turns(ways: Sequence[Way], repetitions: int) -> Iterator[tuple[int, list[Way]]]:
    """Number of each repetition, and the contenders in its order: every other one backwards, to favour none."""
    for number in range(repetitions):
        yield number, list(ways) if number % 2 == 0 else list(reversed(ways))


def timed(work: Callable[..., Result], *arguments: Any) -> tuple[float, Result]:
    """Processor seconds that `work` takes, and its result; wall time says little on a machine shared with others."""
    began = time.process_time()
    found = work(*arguments)
    return time.process_time() - began, found


def machine(*packages: str) -> str:
    """The machine and the versions of the packages that matter, as a result's first line names them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return f"{os.cpu_count()}-core {platform.machine()} CPU, {memory:.0f} GiB, {', '.join(versions)}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in (head, ["---"] * len(head), *rows)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times as long as ours theirs took: the median over repetitions, and every one of them."""
    found = [peer / own for own, peer in zip(ours, theirs, strict=True)]
    return f"**{statistics.median(found):.2f}×** (median of {', '.join(f'{value:.2f}' for value in found)})"


def report(title: str, lines: Sequence[str], options: argparse.Namespace, about: str, *packages: str) -> None:
    """Print the result, and with --write keep it in results/ under the name of the script.

    `about` says what was measured, `packages` which versions matter; the command, machine, seed and day are added.
    """
    script, given = Path(sys.argv[0]), [word for word in sys.argv[1:] if word != "--write"]
    command = " ".join(["python", f"benchmarks/{script.name}", *given])
    first = f"`{command}`: {about}, seed {options.seed}; {machine(*packages)}, {options.date}."
    text = "\n".join([f"# {title}", "", first, "", *lines, ""])
    print(text)
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{script.stem}.md").write_text(text, encoding="utf-8")


def random_llama(seed: int, rewards: bool = False, **shape: Any) -> Any:
    """A random Llama in float32, or reward model: 5M parameters unless `shape` (of LlamaConfig) says otherwise."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(seed)
    usual = {
        "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 4096, "initializer_range": 0.1,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    config = LlamaConfig(**{**usual, **shape}, **({"num_labels": 1} if rewards else {}))
    return (LlamaForSequenceClassification if rewards else LlamaForCausalLM)(config).eval()


def millions(model: Any) -> str:
    """How many parameters a model has."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}M"
