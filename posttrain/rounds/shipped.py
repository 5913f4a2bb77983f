"""The recipes and tiny models that come with the package, found by name."""

import importlib.util
import re
import shutil
from itertools import takewhile
from pathlib import Path

from posttrain.errors import UserError


def recipes_folder() -> Path:
    """Where the shipped recipes lie, in a checkout or an installed wheel."""
    spec = importlib.util.find_spec("recipes")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package `recipes` is not installed; install posttrain again")
    return Path(next(iter(spec.submodule_search_locations)))


def shipped_recipes() -> dict[str, Path]:
    """Name → file: `quickstart`, and `quickstart/no_dpo` for the others beside a `recipe.yaml`."""
    root = recipes_folder()
    found = {}
    for path in sorted(root.glob("*/*.yaml")):
        folder = path.parent.name
        if folder == "accelerate":
            continue
        found[folder if path.stem == "recipe" else f"{folder}/{path.stem}"] = path
    return found


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """A path (relative to `beside` or the working folder) or a shipped recipe's name. Raises UserError when neither."""
    candidates = [Path(name)] if beside is None or Path(name).is_absolute() else [beside / name, Path(name)]
    for path in candidates:
        if path.is_file():
            return path
        if (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    folder = next((path for path in candidates if name and path.is_dir()), None)
    found = f"{folder} is a folder without a recipe.yaml" if folder else f"recipe {name!r}: no such file"
    raise UserError(f"{found}, and no shipped recipe has that name; shipped are {', '.join(shipped)}")


def purpose(recipe: Path) -> str:
    """The first sentence of the manual on top of a recipe, without the command beside it."""
    lines = takewhile(lambda line: line.startswith("# "), recipe.read_text(encoding="utf-8").splitlines())
    paragraph = " ".join(line.removeprefix("# ") for line in lines)
    return re.split(r"   |(?<=\.) ", paragraph)[0].rstrip(":")


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a shipped recipe and the files beside it into a folder; its path there. Raises UserError where there is none
    of that name, and where it would replace one."""
    shipped, recipe = shipped_recipes(), folder / "recipe.yaml"
    if name not in shipped:
        raise UserError(f"no shipped recipe is called {name!r}; shipped are {', '.join(shipped)}")
    if recipe.exists():
        raise UserError(f"{recipe} is there already; name another folder")
    source = shipped[name]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recipe.write_text(_with_named_parent(source, shipped), encoding="utf-8")
        for path in sorted(source.parent.rglob("*")):
            copy = folder / path.relative_to(source.parent)
            if path.is_file() and path.suffix not in (".yaml", ".pyc") and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name a folder that can be written") from error
    return recipe


def _with_named_parent(recipe: Path, shipped: dict[str, Path]) -> str:
    """A recipe's text, in which a parent beside it has the name by which it is found from any folder."""
    names = {path.resolve(): name for name, path in shipped.items()}

    def named(match: re.Match[str]) -> str:
        return f"extends: {names.get((recipe.parent / match[1]).resolve(), match[1])}"

    return re.sub(r"^extends: *(\S+)", named, recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)


def tiny_models_folder() -> Path:
    """Holds `base` and `teacher`: what `tiny/base` in a recipe means."""
    return Path(__file__).parent.parent / "tiny"
