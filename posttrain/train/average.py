"""Weight averaging: the mean of checkpoints, one shard in memory (Llama 3, 4.1.5; Wortsman et al. 2022, 2203.05482)."""

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from posttrain.artifacts import MANIFEST, file_sha256
from posttrain.engines.loading import check_folder
from posttrain.errors import UserError
from posttrain.stages import Job
from posttrain.train.checkpoint import card, readable_weights
from posttrain.train.preflight import REPORT

COPIED = ("*.json", "*.jinja", "*.model", "*.txt")
"""Configs, tokenizer and the index of shards come from the first checkpoint."""
MUST_AGREE = ("tokenizer.json", "chat_template.jinja")
"""Files that mean the same ids and the same prompts; weights under others are not comparable."""


def run(job: Job) -> None:
    """Average `of` with `weights`. Raises UserError where names, shapes, dtypes or tokenizers differ."""
    folders = [_folder(path) for path in job.inputs["of"]]
    weights = job.config.weights or (1.0,) * len(folders)
    shares = [weight / sum(weights) for weight in weights]
    check_agreement(folders)
    shards = sorted(folders[0].glob("*.safetensors"))
    for done, shard in enumerate(shards, 1):
        average_shard(shard, folders, shares, job.folder / shard.name)
        job.progress(done, len(shards), "shards")
    for path in sorted({path for pattern in COPIED for path in folders[0].glob(pattern)}):
        if path.name not in (MANIFEST, REPORT, "verdict.json"):
            shutil.copyfile(path, job.folder / path.name)
    readable_weights(job.folder)
    job.summary |= {"checkpoints": len(folders), "weights": shares}
    text = card(job, {"shares": ", ".join(f"{share:.4g}" for share in shares)})
    (job.folder / "README.md").write_text(text, encoding="utf-8")


def _folder(path: Any) -> Path:
    check_folder(path)
    if not Path(path).is_dir():
        raise UserError(f"model {path} is a hub name; averaging reads folders, so download it and name the folder")
    return Path(path)


def check_agreement(folders: Sequence[Path]) -> None:
    """Raise UserError unless all folders have the first's tensors, shapes, dtypes, tokenizer and template."""
    first = _tensors(folders[0])
    for folder in folders[1:]:
        other = _tensors(folder)
        if missing := sorted(first.keys() ^ other.keys()):
            raise UserError(f"{folders[0]} and {folder} cannot be averaged: only one of them has {missing[0]}")
        for name, form in first.items():
            if other[name] != form:
                raise UserError(
                    f"{name} is {form} in {folders[0]} but {other[name]} in {folder}; average models of one kind"
                )
        for name in MUST_AGREE:
            if _hash(folders[0] / name) != _hash(folder / name):
                raise UserError(
                    f"{name} of {folder} differs from that of {folders[0]}; average models of one tokenizer"
                )


def average_shard(shard: Path, folders: Sequence[Path], shares: Sequence[float], target: Path) -> None:
    """Write the weighted mean of the tensors named in `shard`, summed in float32, stored in their dtype."""
    files = [_files(folder) for folder in folders]
    mean: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        opened: dict[Path, Any] = {}

        def tensor(path: Path, name: str) -> torch.Tensor:
            if path not in opened:
                opened[path] = stack.enter_context(safe_open(path, framework="pt"))
            found: torch.Tensor = opened[path].get_tensor(name)
            return found

        for name in (name for name, path in files[0].items() if path == shard):
            total = sum(share * tensor(of[name], name).float() for share, of in zip(shares, files, strict=True))
            assert isinstance(total, torch.Tensor)
            mean[name] = total.to(tensor(shard, name).dtype).contiguous()
    save_file(mean, target, metadata={"format": "pt"})


def _files(folder: Path) -> dict[str, Path]:
    """Tensor name → the file of `folder` that holds it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as handle:
                found |= dict.fromkeys(handle.keys(), path)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read ({error}); make or download it anew") from error
    return found


def _tensors(folder: Path) -> dict[str, str]:
    """Tensor name → its dtype and shape, as text."""
    forms: dict[str, str] = {}
    for name, path in _files(folder).items():
        with safe_open(path, framework="pt") as handle:
            part = handle.get_slice(name)
            forms[name] = f"{part.get_dtype()} {json.dumps(part.get_shape())}"
    return forms


def _hash(path: Path) -> str:
    return file_sha256(path) if path.is_file() else ""
