"""Rewards of K answers to a prompt: `posttrain.engines.scoring` against the same model called the usual way.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py --write

The usual way is `AutoModelForSequenceClassification` on rows of prompt and answer, as many of one length in a batch as
are fastest; all rows are equally long, so the peer pads nothing. One thread, CPU time, the contenders in turn over
parts of the same prompts. Every score must be equal. The peer computes a prompt K times and we once, so by tokens put
through the model the ratio is K·(P + N) / (P + K·N).
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from harness import markdown, millions, parser, random_llama, ratio, report, timed, turns

from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded
from posttrain.engines.scoring import rewards

PAD, VOCABULARY = 0, 2048
BATCH_TOKENS = 16_384
"""What `machine.batch_tokens` is by default."""
PART = 8
"""Prompts scored before the other contender has its turn."""
TOLERANCE = 1e-4


class OwnIds:
    """Stands where the renderer does: the benchmark's rows are ids already."""

    pad_id = PAD


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


def measure(options: argparse.Namespace, model: Any) -> tuple[list[float], list[float]]:
    """CPU seconds of each part of the prompts, ours and theirs."""
    lists = lists_of(options)
    for run in (ours, theirs):
        run(model, lists[:1], options)  # warm
    spent: dict[Any, list[float]] = {ours: [], theirs: []}
    for number, order in turns((ours, theirs), len(range(0, len(lists), PART))):
        part, found = lists[number * PART : (number + 1) * PART], {}
        for run in order:
            seconds, found[run] = timed(run, model, part, options)
            spent[run].append(seconds)
        apart = max(abs(one - two) for one, two in zip(found[ours], found[theirs], strict=True))
        assert apart < TOLERANCE, f"scores differ by {apart}"
        print(f"{number + 1}: ours {spent[ours][-1]:.2f} s, rows {spent[theirs][-1]:.2f} s of CPU time", flush=True)
    return spent[ours], spent[theirs]


def main() -> None:
    options = parser(__doc__, k=16, prompt=512, response=64, prompts=64, batch=16).parse_args()
    torch.set_num_threads(1)
    model = random_llama(options.seed, rewards=True, vocab_size=VOCABULARY, pad_token_id=PAD)
    own, peer = measure(options, model)
    rows = options.prompts * options.k
    bound = options.k * (options.prompt + options.response) / (options.prompt + options.k * options.response)
    contenders = (
        ("`posttrain.engines.scoring`", sum(own)),
        (f"`AutoModelForSequenceClassification`, batches of {options.batch} rows", sum(peer)),
    )
    lines = [
        *markdown(
            ("Contender", "CPU seconds", "rows scored/s"),
            [(name, f"{seconds:.1f}", f"{rows / seconds:.1f}") for name, seconds in contenders],
        ),
        "",
        f"{ratio(own, peer)}; by tokens {bound:.2f}×. Scores are equal to {TOLERANCE:g}.",
    ]
    about = (
        f"{options.prompts} prompts in turns of {PART}, K={options.k}, prompt {options.prompt}, response "
        f"{options.response}; random Llama reward model of {millions(model)} parameters, float32, one thread, CPU time"
    )
    report("Scoring", lines, options, about, "torch", "transformers")


if __name__ == "__main__":
    main()
