"""Models and files from outside the run: found, fingerprinted, and sized for the plan."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from posttrain.artifacts import folder_fingerprint
from posttrain.config import semantic
from posttrain.data.rows import content_id
from posttrain.endpoint import Endpoint
from posttrain.errors import UserError
from posttrain.rounds.recipe import ModelSource
from posttrain.rounds.shipped import tiny_models_folder
from posttrain.stages import External, Size

WHOLE_FILE_BYTES = 64 << 20
"""Larger files are fingerprinted by size, time and their first and last MiB, so that a plan stays quick."""
TINY = "tiny/"
SHIPPED = ("tiny/base", "tiny/teacher")
HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
BILLIONS = re.compile(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])")
TEXT_BYTES_PER_TOKEN = 4
FOLDER_RECORD_BYTES = 1_000
"""About what a record takes; those of a folder are not counted."""
DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".gz")
"""What a missing file is told from a hub name by."""


def model_source(name: str, source: ModelSource, folders: list[Path]) -> External:
    """Resolve a model of the recipe. Raises UserError when it is neither a model folder, a hub name nor served."""
    if source.served is not None:
        return _served(name, source, source.served, folders)
    if source.path.startswith(TINY) and source.path not in SHIPPED and existing(source.path, folders) is None:
        raise UserError(f"models.{name}: there is no {source.path}; with the package come {', '.join(SHIPPED)}")
    if source.path in SHIPPED:
        folder = tiny_models_folder() / source.path.removeprefix(TINY)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"models.{name}: {source.path} is missing from the installation ({folder}); install posttrain again"
            )
        return External(str(folder), fingerprint(folder), Size(parameters=_parameters(name, folder, source)))
    path = existing(source.path, folders)
    if path is not None:
        if not (path / "config.json").is_file():
            raise UserError(f"models.{name}: {path} is not a model folder: it has no config.json")
        return External(str(path.resolve()), fingerprint(path), Size(parameters=_parameters(name, path, source)))
    if not HUB_NAME.match(source.path) or source.path.startswith((".", "/")):
        raise UserError(f"models.{name}: {source.path} not found (looked in {_places(folders)}), and it is no hub name")
    note = "" if source.revision else "hub revision not pinned"
    parameters = source.parameters or _parameters_in_name(source.path)
    key = f"hub:{source.path}@{source.revision or 'main'}"
    return External(source.path, key, Size(parameters=parameters, note=note), revision=source.revision)


def _served(name: str, source: ModelSource, endpoint: Endpoint, folders: list[Path]) -> External:
    """A served model: its name and what is sent with every request enter the key, where it is reached does not.

    It costs this machine nothing, so its size is that of no model; it may cost money.
    """
    if source.api_key_env and not os.environ.get(source.api_key_env):
        raise UserError(f"models.{name}: the environment has no {source.api_key_env}; export the key under that name")
    tokenizer = existing(endpoint.tokenizer, folders) if endpoint.tokenizer else None
    meant = semantic(endpoint) | {"revision": source.revision}
    if tokenizer is not None:
        meant["tokenizer"] = fingerprint(tokenizer)
        endpoint = endpoint.model_copy(update={"tokenizer": str(tokenizer.resolve())})
    return External(endpoint.model, f"served:{content_id(meant)}", Size(note="served", price=endpoint.price), endpoint)


def file_source(name: str, folders: list[Path]) -> External:
    """Resolve a user's data file. Its rows are counted as lines, its tokens as a quarter of its bytes."""
    path = existing(name, folders)
    if path is None:
        raise UserError(f"{name} not found (looked in {_places(folders)})")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        return External(str(path.resolve()), fingerprint(path), _file_size(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def data_source(name: str, revision: str | None, folders: list[Path]) -> External:
    """Resolve what `read` names: a file, a folder of files, or else a data set's hub name."""
    path = existing(name, folders)
    if path is not None and path.is_dir():
        size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
        rows = size // FOLDER_RECORD_BYTES
        return External(str(path.resolve()), fingerprint(path), Size(rows=rows, tokens=size // TEXT_BYTES_PER_TOKEN))
    if path is not None or not HUB_NAME.match(name) or name.startswith((".", "/")) or name.endswith(DATA_SUFFIXES):
        return file_source(name, folders)
    note = "" if revision else "hub revision not pinned"
    return External(name, f"hub-data:{name}@{revision or 'main'}", Size(note=note))


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


def existing(name: str, folders: list[Path]) -> Path | None:
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


def _parameters(name: str, folder: Path, source: ModelSource) -> int:
    if source.parameters:
        return source.parameters
    try:
        return llama_parameters(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"models.{name}: {folder / 'config.json'} cannot be read as a Llama config ({error!r}); mend it, or set "
            "parameters: there"
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
