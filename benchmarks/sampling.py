"""Sampling K answers to a prompt: our decode loop against transformers' `generate(num_return_sequences=K)`.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py --write

The same random Llama, the same prompts, one thread, CPU time, the contenders in turn, batches as large as the same
number of tokens in memory allows (the peer's cache holds a prompt K times, ours once). No token ends an answer, so that
both make the same number of tokens. Before any timing both must take the same greedy tokens. The peer computes a prompt
once for each of its K answers and we once for all of them, so by tokens put through the model the ratio is
K·(P + N) / (P + K·N).
"""

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from posttrain.engines.decoding import decode
from posttrain.engines.protocol import Request, Sampling
from posttrain.engines.transformers import batches

RESULTS = Path(__file__).parent / "results" / "sampling.md"
PAD, VOCABULARY = 0, 2048
BATCH_TOKENS = 16_384
"""What `machine.batch_tokens` is by default."""


def random_llama(seed: int) -> Any:
    """9.7M parameters in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=320, intermediate_size=864, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=4096, tie_word_embeddings=True, initializer_range=0.1,
        bos_token_id=1, eos_token_id=None, pad_token_id=PAD,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
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


def cpu_seconds(run: Any, model: Any, batches: list[list[list[int]]], sampling: Sampling) -> float:
    began = time.process_time()
    for batch in batches:
        made = run(model, batch, sampling)
        assert all(len(ids) == sampling.max_new_tokens for ids in made) and len(made) == len(batch) * sampling.n
    return time.process_time() - began


def measure(options: argparse.Namespace) -> list[tuple[float, float]]:
    """CPU seconds of each repetition, (ours, theirs)."""
    model = random_llama(options.seed)
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
    both = []
    for number in range(options.repeat):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        spent = {run: cpu_seconds(run, model, cut[run], sampling) for run in order}
        both.append((spent[ours], spent[theirs]))
        print(f"{number + 1}: ours {spent[ours]:.2f} s, generate {spent[theirs]:.2f} s of CPU time", flush=True)
    return both


def table(options: argparse.Namespace, both: list[tuple[float, float]]) -> str:
    tokens = options.prompts * options.k * options.response
    fastest = [min(times) for times in zip(*both, strict=True)]
    ratios = [theirs / ours for ours, theirs in both]
    bound = options.k * (options.prompt + options.response) / (options.prompt + options.k * options.response)
    rows = [
        f"| decode loop of `posttrain.engines` | {fastest[0]:.2f} | {tokens / fastest[0]:,.0f} |",
        f"| `generate(num_return_sequences={options.k})` | {fastest[1]:.2f} | {tokens / fastest[1]:,.0f} |",
    ]
    return "\n".join([
        "# Sampling", "",
        f"K={options.k}, prompt {options.prompt}, response {options.response}, {options.prompts} prompts, seed "
        f"{options.seed}, {options.repeat} repetitions in turn; random Llama of 9.7M parameters, float32, one thread, "
        f"{os.cpu_count()}-core {platform.machine()} CPU shared with other work (so CPU time), torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {options.date}.", "",
        "| Contender | CPU seconds, fastest | tokens/s |", "|---|---|---|", *rows, "",
        f"**{statistics.median(ratios):.2f}×** (median of {', '.join(f'{r:.2f}' for r in ratios)}); by tokens "
        f"{bound:.1f}×. Greedy tokens are equal.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("k", 16), ("prompt", 512), ("response", 64), ("prompts", 10), ("repeat", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = table(options, measure(options))
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
