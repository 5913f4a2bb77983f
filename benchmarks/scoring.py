"""Rewards of K answers to a prompt: `posttrain.engines.scoring` against the same model called the usual way.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py --write

The usual way is `AutoModelForSequenceClassification` on rows of prompt and answer, as many of one length in a batch as
are fastest; all rows are equally long, so the peer pads nothing. One thread, CPU time, the contenders in turn over
parts of the same prompts. Every score must be equal. The peer computes a prompt K times and we once, so by tokens put
through the model the ratio is K·(P + N) / (P + K·N).
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded
from posttrain.engines.scoring import rewards

RESULTS = Path(__file__).parent / "results" / "scoring.md"
PAD, VOCABULARY = 0, 2048
BATCH_TOKENS = 16_384
"""What `machine.batch_tokens` is by default."""
PART = 8
"""Prompts scored before the other contender has its turn."""
TOLERANCE = 1e-4


class OwnIds:
    """Stands where the renderer does: the benchmark's rows are ids already."""

    pad_id = PAD


def random_llama(seed: int) -> tuple[Any, int]:
    """A random reward model in float32, loaded as anybody would, and its parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=4096, initializer_range=0.1, bos_token_id=1, eos_token_id=2,
        pad_token_id=PAD, num_labels=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        LlamaForSequenceClassification(config).save_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return model, sum(parameter.numel() for parameter in model.parameters())


def lists_of(options: argparse.Namespace) -> list[AnswerList]:
    generator = torch.Generator().manual_seed(options.seed)

    def ids(*shape: int) -> Any:
        return torch.randint(3, VOCABULARY, shape, generator=generator).tolist()

    return [AnswerList(ids(options.prompt), ids(options.k, options.response)) for _ in range(options.prompts)]


def ours(model: Any, lists: Sequence[AnswerList], options: argparse.Namespace) -> list[float]:
    loaded = Loaded(model, OwnIds())  # type: ignore[arg-type]
    return [value for own in rewards(loaded, lists, BATCH_TOKENS) for value in own]


@torch.inference_mode()
def theirs(model: Any, lists: Sequence[AnswerList], options: argparse.Namespace) -> list[float]:
    rows = [item.prompt + answer for item in lists for answer in item.answers]
    found: list[float] = []
    for start in range(0, len(rows), options.batch):
        ids = torch.tensor(rows[start : start + options.batch])
        found += model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].tolist()
    return found


def measure(options: argparse.Namespace, model: Any) -> list[tuple[float, float]]:
    """CPU seconds of each part, (ours, theirs)."""
    lists = lists_of(options)
    for run in (ours, theirs):
        run(model, lists[:1], options)  # warm
    both = []
    for number, start in enumerate(range(0, len(lists), PART)):
        part, spent, found = lists[start : start + PART], {}, {}
        for run in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            began = time.process_time()
            found[run] = run(model, part, options)
            spent[run] = time.process_time() - began
        apart = max(abs(one - two) for one, two in zip(found[ours], found[theirs], strict=True))
        assert apart < TOLERANCE, f"scores differ by {apart}"
        both.append((spent[ours], spent[theirs]))
        print(f"{number + 1}: ours {spent[ours]:.2f} s, rows {spent[theirs]:.2f} s of CPU time", flush=True)
    return both


def table(options: argparse.Namespace, parameters: int, both: list[tuple[float, float]]) -> str:
    rows = options.prompts * options.k
    own, peer = (sum(times) for times in zip(*both, strict=True))
    ratios = [theirs / ours for ours, theirs in both]
    bound = options.k * (options.prompt + options.response) / (options.prompt + options.k * options.response)
    return "\n".join([
        "# Scoring", "",
        f"`python benchmarks/scoring.py --write`: {options.prompts} prompts, K={options.k}, prompt {options.prompt}, "
        f"response {options.response}, seed {options.seed}; random Llama reward model of {parameters / 1e6:.1f}M "
        f"parameters, float32, one thread, {os.cpu_count()}-core {platform.machine()} CPU shared with other work "
        f"(so CPU time, in turns of {PART} prompts), torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {options.date}.", "",
        "| Contender | CPU seconds | rows scored/s |", "|---|---|---|",
        f"| `posttrain.engines.scoring` | {own:.1f} | {rows / own:.1f} |",
        f"| `AutoModelForSequenceClassification`, batches of {options.batch} rows | {peer:.1f} | {rows / peer:.1f} |",
        "", f"**{peer / own:.2f}×** (turns {min(ratios):.2f} to {max(ratios):.2f}, median "
        f"{statistics.median(ratios):.2f}); by tokens {bound:.2f}×. Scores are equal to {TOLERANCE:g}.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("k", 16), ("prompt", 512), ("response", 64), ("prompts", 64), ("batch", 16), ("seed", 0))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, parameters = random_llama(options.seed)
    text = table(options, parameters, measure(options, model))
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
