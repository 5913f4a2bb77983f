"""Artifacts: folders that hold a stage's result and a `manifest.json` written last.

A folder without a manifest does not exist. A stage writes into `<folder>.part`, which is renamed once the manifest in
it is on disk; rows under way stand in a `Journal` there, so that a killed stage goes on with the chunks it lacks.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError

MANIFEST = "manifest.json"
PART = ".part"
"""Suffix of the folder a stage is writing; never read by another stage."""
LOG = "stage.log"
"""The stage's own log: in the folder, but not part of its content."""
JOURNAL = ".journal.jsonl"
CHECKPOINTS = "checkpoints"
"""Folder below a `.part` that training goes on from; like journals it is no content and goes when the stage is done."""
HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a finished artifact says of itself. `content` is the hash over its files' hashes."""

    stage: str
    kind: str
    key: str
    config: dict[str, Any]
    parents: dict[str, Any]
    """Input name → `{"key", "content"}` of an artifact, `{"source", "fingerprint"}` of something from outside, or a
    list of them."""
    files: dict[str, FileRecord]
    content: str
    source_hash: str
    rows: dict[str, int] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """Seconds, tokens, peak memory in bytes, device."""
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = 1


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished artifact, or None where there is none.

    Raises UserError when a file is missing or has another size than recorded, or when the manifest cannot be read.
    """
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        raw["files"] = {name: FileRecord(**record) for name, record in raw["files"].items()}
        manifest = Manifest(**raw)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read ({error}); remove the folder and run again") from error
    for name, record in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != record.bytes:
            got = "is missing" if size is None else f"has {size} bytes, not {record.bytes}"
            raise UserError(f"{path} {got}; remove {folder} and run again to make it anew")
    return manifest


def verify(folder: Path) -> None:
    """Raise UserError unless every file of the artifact still has the hash its manifest records."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is not a finished artifact: it has no {MANIFEST}")
    for name, record in manifest.files.items():
        if file_sha256(folder / name) != record.sha256:
            raise UserError(f"{folder / name} was changed after it was made; remove {folder} and run again")


def write_manifest(folder: Path, **fields: Any) -> Manifest:
    """Hash every file of `folder`, write its manifest durably and return it. `fields` are those of Manifest but files
    and content."""
    files = {
        str(path.relative_to(folder)): FileRecord(path.stat().st_size, file_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (LOG, MANIFEST)
        and not path.name.endswith(JOURNAL)
        and path.relative_to(folder).parts[0] != CHECKPOINTS
    }
    listing = json.dumps([[name, record.sha256] for name, record in files.items()])
    manifest = Manifest(files=files, content=hashlib.sha256(listing.encode()).hexdigest()[:16], **fields)
    write_durably(folder / MANIFEST, json.dumps(asdict(manifest), indent=1, ensure_ascii=False))
    return manifest


def publish(part: Path, folder: Path) -> None:
    """Give a finished `.part` folder its name; a broken folder of that name is replaced. What only served to go on
    (journals, checkpoints) is dropped."""
    for journal in part.glob(f"*{JOURNAL}"):
        journal.unlink()
    shutil.rmtree(part / CHECKPOINTS, ignore_errors=True)
    if folder.exists():
        os.rename(folder, folder.with_name(f"{folder.name}.broken-{time.time_ns()}"))
    os.rename(part, folder)
    sync_folder(folder.parent)


def write_durably(path: Path, text: str) -> None:
    """Write through a temporary file, fsync and rename, so that a reader sees the old text or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed into a folder, or created in it, survive the machine's failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, in place of what has it; on another file system a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def folder_fingerprint(path: Path) -> str:
    """Sixteen hex digits over the names and contents of a file, or of all files below a folder."""
    if path.is_file():
        return file_sha256(path)[:16]
    digest = hashlib.sha256()
    for item in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{item.relative_to(path)}\0{file_sha256(item)}\n".encode())
    return digest.hexdigest()[:16]


class Journal:
    """Append-only JSONL of finished chunks: a chunk is the unit of durability and is never computed twice.

    Each line is `{"chunk": id, "rows": [...]}`. A line torn by a kill is cut off when the journal is opened.
    """

    def __init__(self, folder: Path, name: str):
        self.path = folder / f"{name}{JOURNAL}"
        self.chunks: dict[str, list[dict[str, Any]]] = {}
        whole = 0
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None:
                    break
                self.chunks[entry["chunk"]] = entry["rows"]
                whole += len(line)
            os.truncate(self.path, whole)

    def __contains__(self, chunk: str) -> bool:
        return chunk in self.chunks

    def append(self, chunk: str, rows: list[dict[str, Any]], sync: bool = True) -> None:
        """Record a finished chunk; when this returns it survives a kill, and with `sync` the machine's failure too."""
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"chunk": chunk, "rows": rows}, ensure_ascii=False) + "\n")
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        self.chunks[chunk] = rows

    def rows(self, order: list[str]) -> Iterator[dict[str, Any]]:
        """All rows, chunk by chunk in the order given."""
        for chunk in order:
            yield from self.chunks[chunk]


@contextmanager
def lock(path: Path, wait_message: str = "", tell: Any = None) -> Iterator[None]:
    """Hold an exclusive lock file; when another process has it, say so once through `tell` and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if tell and wait_message:
                tell(wait_message)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
