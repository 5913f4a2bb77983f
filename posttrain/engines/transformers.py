"""The engine inside this process: transformers' model, our decode loop."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.engines.decoding import Draft, decode
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.protocol import Completion, Engine, Finish, Request, Sampling, sample_seed, unanswered
from posttrain.engines.shared import sees_everything
from posttrain.machine import Machine


def open_model(model: str | Path, machine: Machine) -> "TransformersEngine":
    return TransformersEngine(load_model(model, machine), machine)


class TransformersEngine(Engine):
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
                yield unanswered(request, sampling, "too_long")
        fitting = sorted((p for p in prompts if len(p[0]) <= limit), key=lambda p: (len(p[0]), p[1].id))
        for batch in batches(fitting, sampling, self._batch_tokens, sees_everything(self._model.config)):
            yield from self._answer(batch, sampling)

    def _answer(self, batch: list[tuple[list[int], Request]], sampling: Sampling) -> list[list[Completion]]:
        seeds = [[sample_seed(request.seed, i) for i in range(sampling.n)] for _, request in batch]
        prompts = [ids for ids, _ in batch]
        heat = [sampling.temperature_of(request.seed) for _, request in batch]
        drafts = decode(self._model, prompts, seeds, heat, sampling, self._stop_ids, self.renderer.pad_id)
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


def batches(
    prompts: Sequence[tuple[list[int], Request]], sampling: Sampling, batch_tokens: int, shared: bool = True
) -> Iterator[list[tuple[list[int], Request]]]:
    """Cut length-sorted prompts into batches of at most `batch_tokens` tokens, but one prompt at least.

    Counted is what stands in memory at the end, prompts padded to the longest: with `shared` each prompt once and its
    new tokens `n` times, else all of it `n` times.
    """
    batch: list[tuple[list[int], Request]] = []
    for prompt in prompts:
        tokens = (1 if shared else sampling.n) * len(prompt[0]) + sampling.n * sampling.max_new_tokens
        if batch and tokens * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _ends(eos: Any) -> list[int]:
    """The end tokens of a generation config, which holds none, one, or a list."""
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
