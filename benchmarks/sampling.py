"""Sampling K answers to a prompt: our decode loop against transformers' `generate(num_return_sequences=K)`.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py --write

The same random Llama, the same prompts, one thread, CPU time, the contenders in turn, batches as large as the same
number of tokens in memory allows (the peer's cache holds a prompt K times, ours once). No token ends an answer, so that
both make the same number of tokens. Before any timing both must take the same greedy tokens. The peer computes a prompt
once for each of its K answers and we once for all of them, so by tokens put through the model the ratio is
K·(P + N) / (P + K·N).
"""

import argparse
from typing import Any

import torch
from harness import markdown, millions, parser, random_llama, ratio, report, timed, turns

from posttrain.engines.decoding import decode
from posttrain.engines.protocol import Request, Sampling
from posttrain.engines.transformers import batches

PAD, VOCABULARY = 0, 2048
BATCH_TOKENS = 16_384
"""What `machine.batch_tokens` is by default."""


def endless_llama(seed: int) -> Any:
    """A model none of whose tokens ends an answer."""
    model = random_llama(
        seed, vocab_size=VOCABULARY, hidden_size=320, intermediate_size=864, num_hidden_layers=8,
        tie_word_embeddings=True, eos_token_id=None, pad_token_id=PAD,
    )  # fmt: skip
    model.generation_config.eos_token_id = None
    return model


def prompts_of(count: int, length: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (count, length), generator=generator).tolist()


def ours(model: Any, batch: list[list[int]], sampling: Sampling) -> list[list[int]]:
    seeds = [[1000 * row + index for index in range(sampling.n)] for row in range(len(batch))]
    heat = [sampling.temperature_of(0)] * len(batch)
    groups = decode(model, batch, seeds, heat, sampling, (), PAD)
    return [draft.ids for group in groups for draft in group]


@torch.inference_mode()
def theirs(model: Any, batch: list[list[int]], sampling: Sampling) -> list[list[int]]:
    ids = torch.tensor(batch)
    drawing = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0} if sampling.temperature else {}
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=sampling.max_new_tokens,
        num_return_sequences=sampling.n if drawing else 1, **drawing,
    )  # fmt: skip
    return out[:, ids.shape[1] :].tolist()


def sample(run: Any, model: Any, batches: list[list[list[int]]], sampling: Sampling) -> None:
    for batch in batches:
        made = run(model, batch, sampling)
        assert all(len(ids) == sampling.max_new_tokens for ids in made) and len(made) == len(batch) * sampling.n


def measure(options: argparse.Namespace, model: Any) -> tuple[list[float], list[float]]:
    """CPU seconds of each repetition, ours and theirs."""
    prompts = prompts_of(options.prompts, options.prompt, options.seed)
    greedy = Sampling(1, 0.0, 1.0, options.response)
    assert ours(model, prompts[:2], greedy) == theirs(model, prompts[:2], greedy), "greedy tokens differ"
    sampling = Sampling(options.k, 1.0, 1.0, options.response)
    requests = [(ids, Request(str(number), ())) for number, ids in enumerate(prompts)]
    cut = {
        run: [[ids for ids, _ in batch] for batch in batches(requests, sampling, BATCH_TOKENS, run is ours)]
        for run in (ours, theirs)
    }
    for run in (ours, theirs):
        run(model, cut[run][0][:1], sampling)  # warm
    spent: dict[Any, list[float]] = {ours: [], theirs: []}
    for number, order in turns((ours, theirs), options.repeat):
        for run in order:
            spent[run].append(timed(sample, run, model, cut[run], sampling)[0])
        print(f"{number + 1}: ours {spent[ours][-1]:.2f} s, generate {spent[theirs][-1]:.2f} s of CPU time", flush=True)
    return spent[ours], spent[theirs]


def main() -> None:
    options = parser(__doc__, k=16, prompt=512, response=64, prompts=10, repeat=3).parse_args()
    torch.set_num_threads(1)
    model = endless_llama(options.seed)
    own, peer = measure(options, model)
    tokens = options.prompts * options.k * options.response
    bound = options.k * (options.prompt + options.response) / (options.prompt + options.k * options.response)
    contenders = (
        ("decode loop of `posttrain.engines`", min(own)),
        (f"`generate(num_return_sequences={options.k})`", min(peer)),
    )
    lines = [
        *markdown(
            ("Contender", "CPU seconds, fastest", "tokens/s"),
            [(name, f"{seconds:.2f}", f"{tokens / seconds:,.0f}") for name, seconds in contenders],
        ),
        "",
        f"{ratio(own, peer)}; by tokens {bound:.1f}×. Greedy tokens are equal.",
    ]
    about = (
        f"K={options.k}, prompt {options.prompt}, response {options.response}, {options.prompts} prompts, "
        f"{options.repeat} repetitions in turn; random Llama of {millions(model)} parameters, float32, one thread, "
        "CPU time"
    )
    report("Sampling", lines, options, about, "torch", "transformers")


if __name__ == "__main__":
    main()
