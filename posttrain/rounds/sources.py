"""Models and files from outside the run: found, fingerprinted, and sized for the plan."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from posttrain.artifacts import folder_fingerprint
from posttrain.errors import UserError
from posttrain.rounds.recipe import ModelSource
from posttrain.rounds.shipped import tiny_models_folder
from posttrain.stages import External, Size

WHOLE_FILE_BYTES = 64 << 20
"""Larger files are fingerprinted by size, time and their first and last MiB, so that a plan stays quick."""
HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
BILLIONS = re.compile(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])")
TEXT_BYTES_PER_TOKEN = 4


def model_source(name: str, source: ModelSource, folders: list[Path]) -> External:
    """Resolve a model of the recipe. Raises UserError when it is neither a model folder nor a hub name."""
    if source.path in ("tiny/base", "tiny/teacher"):
        folder = tiny_models_folder() / source.path.removeprefix("tiny/")
        if not (folder / "config.json").is_file():
            raise UserError(
                f"models.{name}: {source.path} is missing from the installation ({folder}); install posttrain again"
            )
        return External(str(folder), fingerprint(folder), Size(parameters=_parameters(folder, source)))
    path = _existing(source.path, folders)
    if path is not None:
        if not (path / "config.json").is_file():
            raise UserError(f"models.{name}: {path} is not a model folder: it has no config.json")
        return External(str(path.resolve()), fingerprint(path), Size(parameters=_parameters(path, source)))
    if not HUB_NAME.match(source.path) or source.path.startswith((".", "/")):
        raise UserError(f"models.{name}: {source.path} not found (looked in {_places(folders)}), and it is no hub name")
    note = "" if source.revision else "hub revision not pinned"
    parameters = source.parameters or _parameters_in_name(source.path)
    return External(
        source.path, f"hub:{source.path}@{source.revision or 'main'}", Size(parameters=parameters, note=note)
    )


def file_source(name: str, folders: list[Path]) -> External:
    """Resolve a user's data file. Its rows are counted as lines, its tokens as a quarter of its bytes."""
    path = _existing(name, folders)
    if path is None:
        raise UserError(f"{name} not found (looked in {_places(folders)})")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        return External(str(path.resolve()), fingerprint(path), _file_size(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def fingerprint(path: Path) -> str:
    """Content hash of a file or folder; see WHOLE_FILE_BYTES for what is done with large files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if all(item.stat().st_size <= WHOLE_FILE_BYTES for item in files):
        return folder_fingerprint(path)
    digest = hashlib.sha256()
    for item in files:
        digest.update(f"{item.relative_to(path)}\0{_large_or_small(item)}\n".encode())
    return digest.hexdigest()[:16]


def _large_or_small(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= WHOLE_FILE_BYTES:
        return folder_fingerprint(path)
    with open(path, "rb") as handle:
        head = handle.read(1 << 20)
        handle.seek(-(1 << 20), 2)
        ends = hashlib.sha256(head + handle.read()).hexdigest()
    return f"{stat.st_size}:{stat.st_mtime_ns}:{ends}"


def _existing(name: str, folders: list[Path]) -> Path | None:
    path = Path(name).expanduser()
    options = [path] if path.is_absolute() else [*(folder / path for folder in folders), Path.cwd() / path]
    return next((option for option in options if option.exists()), None)


def _places(folders: list[Path]) -> str:
    return ", ".join(dict.fromkeys([*(f"{folder}/" for folder in folders), f"{Path.cwd()}/"]))


def _file_size(path: Path) -> Size:
    size = path.stat().st_size
    with open(path, "rb") as handle:
        sample = handle.read(WHOLE_FILE_BYTES)
    lines = sample.count(b"\n") + (0 if sample.endswith(b"\n") or not sample else 1)
    return Size(rows=int(lines * max(1.0, size / max(1, len(sample)))), tokens=size // TEXT_BYTES_PER_TOKEN)


def _parameters(folder: Path, source: ModelSource) -> int:
    if source.parameters:
        return source.parameters
    try:
        return llama_parameters(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'config.json'} cannot be read as a Llama config ({error!r}); set parameters: in models"
        ) from error


def llama_parameters(config: dict[str, Any]) -> int:
    """Parameters of a Llama-architecture model from its config.json."""
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    keys = config.get("num_key_value_heads") or heads
    attention = 2 * hidden * head * (heads + keys)
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return embeddings + layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden


def _parameters_in_name(name: str) -> int:
    """`meta-llama/Llama-3.1-8B` → 8 billion; 0 when the name does not say."""
    found = BILLIONS.findall(name)
    return int(float(found[-1]) * 1e9) if found else 0
