"""The code that a stage's result depends on, hashed: its module and spec, those that its config names, and what all of
them import of the same project.

Imports are read from the source, those inside functions too, and nothing is imported; so it is cheap, and torch-free.
Read anew by every command: there is no cache on disk that could be older than the code.
"""

import ast
import hashlib
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

PROJECT = ("posttrain", "reward", "synth", "eval")
"""Packages whose modules count wherever they are installed; of other code, what lies beside the stage counts."""
DATA = ("*.jinja", "*.yaml")
"""Files that count as code of the package they lie in."""
IMPORT = re.compile(r"^[ \t]*(import\b|from\s+[\w.]+\s+import\s*(\()?)", re.MULTILINE)
NAMED = re.compile(rf"[\"']((?:{'|'.join(PROJECT)})\.[\w.]+)[\"']")
"""A module that is imported by its name, as engines are."""
UNKNOWN = "unknown"
"""The hash of a stage whose source is not to be found."""


@cache
def source_hash(*modules: str) -> str:
    """Hash of the files of `code_files(*modules)`, in which neither their place nor their order counts."""
    files = code_files(*modules)
    if not files:
        return UNKNOWN
    hashes = {name: _hash(path) for name, path in files.items()}
    return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()[:16]


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_files(*modules: str) -> dict[str, Path]:
    """Name → file of a stage's modules, their specs, and all that these import of the project, near and far, with the
    packages around them and their DATA; empty when one of the modules or specs has no file."""
    found: dict[str, Path] = {}
    todo = [name for module in modules for name in (module, f"{module}_spec")]
    folders = {top: folder for module in modules for top, folder in _folders(module).items()}
    if any(_file(name, folders) is None for name in todo):
        return {}
    while todo:
        name = todo.pop()
        path = _file(name, folders)
        if path is None or name in found:
            continue
        found[name] = path
        todo += [name.rpartition(".")[0], *_imported(path, name)]
        found |= {f"{name}/{data.relative_to(path.parent)}": data for data in _data(path, name)}
    return found


def _data(path: Path, name: str) -> Iterator[Path]:
    """That of a package, in folders of its own too; what our top-level packages hold are shipped models."""
    if path.name != "__init__.py" or name in PROJECT:
        return
    bare = [folder for folder in path.parent.iterdir() if folder.is_dir() and not any(folder.rglob("*.py"))]
    for pattern in DATA:
        yield from path.parent.glob(pattern)
        for folder in bare:
            yield from folder.rglob(pattern)


def _folders(module: str) -> dict[str, Path]:
    """Top-level name → folder it is looked for in: the project's packages, and what lies beside a user's stage."""
    found = {}
    for top in (*PROJECT, module.partition(".")[0]):
        spec = importlib.util.find_spec(top)
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            path = Path(spec.origin)
            found[top] = path.parent.parent if path.name == "__init__.py" else path.parent
    own = found.get(module.partition(".")[0])
    if own is not None and str(own) not in {sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")}:
        found |= {path.stem: own for path in own.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return found


def _file(name: str, folders: dict[str, Path]) -> Path | None:
    """The file of a module of one of the `folders`, else None. No package is imported to find it."""
    folder = folders.get(name.partition(".")[0])
    if folder is None:
        return None
    base = folder.joinpath(*name.split("."))
    options = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((path for path in options if path.is_file()), None)


@cache
def _imported(path: Path, name: str) -> tuple[str, ...]:
    """What a module names in its import statements, as modules (of `from a import b`, both `a` and `a.b`), or whole in
    a string."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    source = path.read_text(encoding="utf-8").replace("\\\n", " ")
    names: list[str] = NAMED.findall(source)
    for node in _imports(source):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _imports(source: str) -> Iterator[ast.stmt]:
    """The import statements of a module, wherever they stand. Whole modules are not parsed, which takes half a second
    for a plan; a line of prose that begins like a statement is none, or names no module."""
    for match in IMPORT.finditer(source):
        rest = source[match.start(1) :]
        end = _closing(rest) if match[2] else rest.find("\n")
        with suppress(SyntaxError):
            yield from ast.parse(rest[: end if end >= 0 else None]).body


def _closing(text: str) -> int:
    """Where the bracket of an import closes: after the first `)` that no comment holds."""
    for match in re.finditer(r"#.*|\)", text):
        if match[0] == ")":
            return match.end()
    return -1
