"""Weight averaging, one shard in memory (Llama 3, 4.1.5): the mean of checkpoints, the moving average of one run, or a
greedy soup."""

import importlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from posttrain.artifacts import file_sha256
from posttrain.engines.loading import check_folder
from posttrain.errors import UserError
from posttrain.stages import Job, load_spec
from posttrain.train.checkpoint import card, readable_weights
from posttrain.train.snapshots import snapshots

COPIED = (
    "config.json", "generation_config.json", "*.index.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "*.jinja", "*.model",
)  # fmt: skip
"""Configs, tokenizer and the index of shards come from the first checkpoint; what it says of its own training (its
preflight, its probe, its report) does not hold for a mean."""
TRIED = ".tried"
"""Folder of a soup that is measured, while the stage runs."""
MUST_AGREE = ("tokenizer.json", "chat_template.jinja")
"""Files that mean the same ids and the same prompts; weights under others are not comparable."""


def run(job: Job) -> None:
    """Average `of` as the config says. Raises UserError where names, shapes, dtypes or tokenizers differ."""
    folders = [_folder(path) for path in job.inputs["of"]]
    check_agreement(folders)
    form = folders[0]
    if job.config.method == "ema":
        folders = snapshots(form)
        if not folders:
            raise UserError(f"{form} holds no snapshots; train it anew with snapshots above 0")
        check_shapes(form, folders)
        shares = ema_shares(len(folders), job.config.decay)
    elif job.config.method == "greedy":
        folders = greedy(job, folders)
        shares = [1 / len(folders)] * len(folders)
    else:
        weights = job.config.weights or (1.0,) * len(folders)
        shares = [weight / sum(weights) for weight in weights]
    write_average(job, form, folders, shares, job.folder)
    job.summary |= {"checkpoints": len(folders), "weights": shares}
    text = card(job, {"shares": ", ".join(f"{share:.4g}" for share in shares)})
    (job.folder / "README.md").write_text(text, encoding="utf-8")


def ema_shares(count: int, decay: float) -> list[float]:
    """What each of `count` snapshots, oldest first, has in m ← decay · m + (1 − decay) · snapshot, begun with the
    first."""
    later = [(1 - decay) * decay ** (count - 1 - place) for place in range(1, count)]
    return [decay ** (count - 1), *later]


def write_average(job: Job, form: Path, folders: Sequence[Path], shares: Sequence[float], target: Path) -> None:
    """A checkpoint folder of the weighted mean of `folders`, in shards, dtypes and with the tokenizer of `form`."""
    target.mkdir(exist_ok=True)
    shards = sorted(form.glob("*.safetensors"))
    for done, shard in enumerate(shards, 1):
        average_shard(shard, folders, shares, target / shard.name)
        job.progress(done, len(shards), "shards")
    for path in sorted({path for pattern in COPIED for path in form.glob(pattern)}):
        shutil.copyfile(path, target / path.name)
    readable_weights(target)


def greedy(job: Job, folders: Sequence[Path]) -> list[Path]:
    """The checkpoints of the greedy soup, best first (Wortsman et al. 2022, 2203.05482, recipe 1)."""
    scores = {folder: _score(job, folder, f"alone-{place}") for place, folder in enumerate(folders)}
    ordered = sorted(folders, key=lambda folder: -scores[folder])
    soup, best = ordered[:1], scores[ordered[0]]
    mixed = job.folder / TRIED  # as large as a checkpoint, so where one has room
    for place, folder in enumerate(ordered[1:]):
        shutil.rmtree(mixed, ignore_errors=True)
        more = [*soup, folder]
        write_average(job, folders[0], more, [1 / len(more)] * len(more), mixed)
        found = _score(job, mixed, f"soup-{place}")
        if found >= best:
            soup, best = more, found
    shutil.rmtree(mixed, ignore_errors=True)
    job.summary |= {"alone": [scores[folder] for folder in folders], "accuracy": best}
    job.summary["soup"] = [folders.index(folder) for folder in soup]
    return soup


def _score(job: Job, model: Path, name: str) -> float:
    """Accuracy of a model by the scorer, which is a stage that is run in a folder of its own."""
    spec = load_spec(job.config.scorer)
    with tempfile.TemporaryDirectory() as folder:
        inputs = {"model": model, "prompts": job.inputs["prompts"]}
        nested = replace(job, config=spec.Config(), inputs=inputs, folder=Path(folder), name=name, summary={}, rows={})
        importlib.import_module(job.config.scorer).run(nested)
        job.tokens = nested.tokens
        return float(nested.summary["overall"]["accuracy"])


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


def check_shapes(form: Path, folders: Sequence[Path]) -> None:
    """Raise UserError unless all folders have the tensors of `form`, in its shapes; they may be in another dtype."""
    expected = {name: kind.split(" ", 1)[1] for name, kind in _tensors(form).items()}
    for folder in folders:
        if {name: kind.split(" ", 1)[1] for name, kind in _tensors(folder).items()} != expected:
            raise UserError(f"{folder} holds other tensors than {form}; train it anew")


def average_shard(shard: Path, folders: Sequence[Path], shares: Sequence[float], target: Path) -> None:
    """Write the weighted mean of the tensors named in `shard`, summed in float32, stored in their dtype."""
    files, names = [_files(folder) for folder in folders], list(_names_in(shard))
    mean: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        opened: dict[Path, Any] = {}

        def tensor(path: Path, name: str) -> torch.Tensor:
            if path not in opened:
                opened[path] = stack.enter_context(safe_open(path, framework="pt"))
            found: torch.Tensor = opened[path].get_tensor(name)
            return found

        for name in names:
            total = sum(share * tensor(of[name], name).float() for share, of in zip(shares, files, strict=True))
            assert isinstance(total, torch.Tensor)
            mean[name] = total.to(tensor(shard, name).dtype).contiguous()
    save_file(mean, target, metadata={"format": "pt"})


def _files(folder: Path) -> dict[str, Path]:
    """Tensor name → the file of `folder` that holds it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= dict.fromkeys(_names_in(path), path)
    return found


def _names_in(path: Path) -> list[str]:
    """Names of the tensors in a file."""
    try:
        with safe_open(path, framework="pt") as handle:
            return list(handle.keys())
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); make or download it anew") from error


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
