"""Repositories of Python files: who imports whom, read from the syntax trees."""

import ast
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from random import Random

from posttrain.data.rows import Check
from synth.documents import Library
from synth.long_context.contexts import WRAPPED, Part, fill

PACKAGE = "__init__"
IMPORTERS_ROOM = 0.6
"""Of a context, what the files that import the missing one may take; the others distract."""

Turns = list[tuple[str, str]]
"""What the user says, and the answer."""


@dataclass(frozen=True)
class Imports:
    """Of each file (by its title): the files of the same repository that import it, with the names they take."""

    importers: dict[str, dict[str, tuple[str, ...]]]

    def needed(self, least: int) -> list[str]:
        """The files that at least so many others import."""
        return sorted(title for title, files in self.importers.items() if len(files) >= least)


def module_name(title: str) -> str:
    """`pkg/mod.py` → `pkg.mod`; a package's `__init__.py` is the package."""
    parts = PurePosixPath(title).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == PACKAGE else parts)


def read_imports(library: Library) -> Imports:
    """The imports of all Python files of a library. A file that does not parse imports nothing and is nobody's."""
    files = [title for title in library.titles if title.endswith(".py")]
    modules = {module_name(title): title for title in files}
    importers: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    broken = set()
    for title in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(library.text(title))
        except (SyntaxError, ValueError, RecursionError):
            broken.add(title)
            continue
        for module, name in _imported(tree, title):
            whole = f"{module}.{name}"
            target = modules.get(whole) or modules.get(module)
            if target and target != title:
                importers[target][title] |= {name} if name and whole not in modules else set()
    return Imports({
        target: {title: tuple(sorted(names)) for title, names in sorted(found.items())}
        for target, found in importers.items() if target not in broken
    })  # fmt: skip


def _imported(tree: ast.Module, title: str) -> Iterable[tuple[str, str]]:
    """(module, name taken from it) of each import, relative ones resolved; the name is empty for `import module`."""
    parents = module_name(title).split(".")
    package = parents if PurePosixPath(title).stem == PACKAGE else parents[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            if node.level <= len(package) + 1:
                module = ".".join([*up, *([node.module] if node.module else [])])
                yield from ((module, alias.name) for alias in node.names)


def surroundings(rng: Random, library: Library, imports: Imports, title: str, tokens: int, least: int) -> list[Part]:
    """The files about a missing one, in random order, of together about `tokens`: its `least` smallest importers, as
    many more as there is room for, and others. A copy of it is left out."""
    parts, room, used = [], tokens * IMPORTERS_ROOM, {title}
    importers = sorted(imports.importers[title], key=library.tokens)
    namesakes = library.named[title.rpartition("/")[2]]
    used |= {other for other in namesakes if library.text(other) == library.text(title)}
    first, more = importers[:least], importers[least:]
    rng.shuffle(more)
    for other in [*first, *more]:
        size = library.tokens(other) + WRAPPED
        if size <= room and not library.fault(other):
            parts.append(Part(other, library.text(other)))
            room -= size
            tokens -= size
        used.add(other)
    parts += fill(rng, library, tokens, title, used)
    rng.shuffle(parts)
    return parts


def missing_file(library: Library, imports: Imports, title: str, shown: list[str]) -> tuple[Turns, Check]:
    """Two turns on a missing file with their answers: which of the files shown import it, and its text. The check of
    the first: all of them are named and none of the others is."""
    needed = {other: names for other, names in imports.importers[title].items() if other in shown}
    first = (
        f"These are files of a Python repository. `{title}` (module `{module_name(title)}`) is missing. "
        "Which of the files shown import it, and what do they take from it?"
    )
    lines = [f"These files import `{module_name(title)}`:", ""]
    for other, names in needed.items():
        taken = ", ".join(f"`{name}`" for name in names)
        lines.append(f"- `{other}`" + (f": {taken}" if taken else ""))
    turns = [
        (first, "\n".join(lines)),
        (f"Write `{title}` so that these files work.", f"```python\n{library.text(title)}\n```"),
    ]
    return turns, Check(
        "needle", {"needles": list(needed), "others": [other for other in shown if other not in needed]}
    )
