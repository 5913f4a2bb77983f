"""The engine inside this process: transformers' model, our decode loop."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.data.rows import content_id
from posttrain.engines.decoding import Draft, decode
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.protocol import Completion, Finish, Request, Sampling
from posttrain.machine import Machine


def open_model(model: str | Path, machine: Machine) -> "TransformersEngine":
    return TransformersEngine(load_model(model, machine), machine)


class TransformersEngine:
    """Requests of similar length run together; a request's prompt is computed once for all its samples."""

    def __init__(self, loaded: Loaded, machine: Machine):
        self.renderer = loaded.renderer
        self._model = loaded.model
        self._batch_tokens = machine.batch_tokens
        self._stop_ids = sorted({*loaded.renderer.stop_ids, *_ends(loaded.model.generation_config.eos_token_id)})

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        prompts = [(self.renderer.prompt(r.messages, r.tools), r) for r in requests]
        limit = self._model.config.max_position_embeddings - sampling.max_new_tokens
        for ids, request in prompts:
            if len(ids) > limit:
                seeds = [sample_seed(request.seed, i) for i in range(sampling.n)]
                yield [Completion(request.id, i, "", (), None, "too_long", seed) for i, seed in enumerate(seeds)]
        fitting = sorted((p for p in prompts if len(p[0]) <= limit), key=lambda p: (len(p[0]), p[1].id))
        for batch in batches(fitting, sampling, self._batch_tokens):
            yield from self._answer(batch, sampling)

    def _answer(self, batch: list[tuple[list[int], Request]], sampling: Sampling) -> list[list[Completion]]:
        seeds = [[sample_seed(request.seed, i) for i in range(sampling.n)] for _, request in batch]
        drafts = decode(self._model, [ids for ids, _ in batch], seeds, sampling, self._stop_ids, self.renderer.pad_id)
        return [
            [self._completion(request, i, draft, seed) for i, (draft, seed) in enumerate(zip(group, own, strict=True))]
            for (_, request), group, own in zip(batch, drafts, seeds, strict=True)
        ]

    def _completion(self, request: Request, index: int, draft: Draft, seed: int) -> Completion:
        said = draft.ids[:-1] if draft.stopped else draft.ids
        text = self.renderer.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        finish: Finish = "stop" if draft.stopped else "length"
        return Completion(request.id, index, text, tuple(draft.ids), draft.logprob, finish, seed)

    def close(self) -> None:
        self._model = None


def sample_seed(seed: int, index: int) -> int:
    """The seed of a request's sample, 60 bits."""
    return int(content_id("sample", seed, index)[:15], 16)


def batches(
    prompts: Sequence[tuple[list[int], Request]], sampling: Sampling, batch_tokens: int
) -> Iterator[list[tuple[list[int], Request]]]:
    """Cut length-sorted prompts into batches of rows × (longest prompt + new tokens) ≤ `batch_tokens`, one at least."""
    batch: list[tuple[list[int], Request]] = []
    for prompt in prompts:
        slots = (len(prompt[0]) + sampling.max_new_tokens) * sampling.n * (len(batch) + 1)
        if batch and slots > batch_tokens:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _ends(eos: Any) -> list[int]:
    """The end tokens of a generation config, which holds none, one, or a list."""
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
