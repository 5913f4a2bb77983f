"""Texts as unit vectors: the mean of an encoder's last states over the tokens of a text.

Letters in shapes: N texts, B of a batch, T tokens, D numbers of a state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from posttrain.engines.loading import check_folder, choose_device, choose_dtype
from posttrain.errors import UserError
from posttrain.machine import Machine


class Encoder:
    """A model folder or hub name, opened for encoding. Raises UserError when it cannot be opened."""

    def __init__(self, path: str, machine: Machine):
        check_folder(path)
        device = choose_device(machine)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(
                path, dtype=choose_dtype(device), use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"the encoder {path} cannot be opened ({reason}); name another model") from error
        self.model = model.to(device).eval()
        self.path = path

    def encode(self, texts: Sequence[str], max_tokens: int, batch_size: int, progress: Callable[[int], None]) -> Tensor:
        """Unit vectors [N, D] in float32 on the CPU, in the order of the texts; `progress` is told how many are done.

        Batches are of like lengths, longest first. Raises UserError for texts that the encoder makes no number of.
        """
        ids = [self._ids(text, max_tokens) for text in texts]
        order = sorted(range(len(ids)), key=lambda place: (-len(ids[place]), ids[place]))
        vectors: Tensor | None = None
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            made = self._batch([ids[place] for place in places])
            if vectors is None:
                vectors = torch.empty(len(ids), made.shape[1])
            vectors[places] = made
            progress(start + len(places))
        assert vectors is not None, "there are texts"
        if not torch.isfinite(vectors).all():
            raise UserError(f"the encoder {self.path} makes vectors that are not finite; its weights are broken")
        return vectors

    def _ids(self, text: str, max_tokens: int) -> list[int]:
        """Token ids; text that spells a control token stays text."""
        most = min(max_tokens, self.tokenizer.model_max_length)
        encoded = self.tokenizer(text, truncation=True, max_length=most, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        return ids or [self.tokenizer.eos_token_id or 0]

    @torch.inference_mode()
    def _batch(self, ids: list[list[int]]) -> Tensor:
        """Unit vectors [B, D] of padded ids [B, T]."""
        width = max(map(len, ids))
        padded_BT = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=self.model.device)
        mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=self.model.device)
        states_BTD = self.model(input_ids=padded_BT, attention_mask=mask_BT).last_hidden_state.float()
        mean_BD = (states_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean_BD, dim=-1).cpu()
