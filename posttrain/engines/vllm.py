"""vLLM inside the stage's process: all requests of a call at once, `n` answers of a prompt from one prefill.

A model that is larger than a device is split by `machine.tensor_parallel`. Copies side by side are the server's
business: `machine.engine: vllm-serve` with `machine.workers`.
"""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain.chat import Renderer
from posttrain.engines.loading import check_folder
from posttrain.engines.protocol import Completion, Engine, Finish, Request, Sampling, sample_seed, unanswered
from posttrain.errors import UserError
from posttrain.machine import Machine

PIP_LINE = "pip install 'posttrain[vllm]'"


def open_model(model: str | Path, machine: Machine) -> "VllmEngine":
    if machine.workers > 1:
        raise UserError("machine.workers with vllm inside a stage is not possible; set machine.engine to vllm-serve")
    check_folder(model)
    return VllmEngine(model, machine)


class VllmEngine(Engine):
    """`vllm.LLM` with prefix caching, asked with the token ids that our renderer makes."""

    def __init__(self, model: str | Path, machine: Machine):
        try:
            import vllm
        except ImportError as error:
            raise UserError(f"machine.engine is vllm but vllm is not installed ({error}); {PIP_LINE}") from error
        self._vllm: Any = vllm
        self.renderer: Renderer = Renderer.from_pretrained(model)
        self._llm: Any = vllm.LLM(
            model=str(model),
            tensor_parallel_size=machine.tensor_parallel,
            gpu_memory_utilization=machine.gpu_memory,
            enable_prefix_caching=True,
            generation_config="vllm",  # not the checkpoint's temperature, top_p and top_k
        )
        self._context = int(self._llm.llm_engine.model_config.max_model_len)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        fitting: list[tuple[list[int], Request]] = []
        for request in requests:
            ids = self.renderer.prompt(request.messages, request.tools)
            if len(ids) + sampling.max_new_tokens > self._context:
                yield unanswered(request, sampling, "too_long")
            else:
                fitting.append((ids, request))
        prompts = [{"prompt_token_ids": ids} for ids, _ in fitting]
        settings = [self._settings(request, sampling) for _, request in fitting]
        answers = self._llm.generate(prompts, settings, use_tqdm=False) if fitting else []
        for answer, (_, request) in zip(answers, fitting, strict=True):
            yield [self._completion(request, output) for output in sorted(answer.outputs, key=lambda one: one.index)]

    def _settings(self, request: Request, sampling: Sampling) -> Any:
        return self._vllm.SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature_of(request.seed),
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=sample_seed(request.seed, 0),
            logprobs=0,  # of the drawn token alone, before temperature: `logprobs_mode` is raw by default
            stop_token_ids=list(self.renderer.stop_ids),
            skip_special_tokens=False,
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        finish: Finish = "length" if output.finish_reason == "length" else "stop"
        seed = sample_seed(request.seed, 0)
        return Completion(
            request.id, output.index, output.text, tuple(output.token_ids), output.cumulative_logprob, finish, seed
        )

    def close(self) -> None:
        self._llm = None
        gc.collect()
