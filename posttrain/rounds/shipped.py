"""The recipes and tiny models that come with the package, found by name."""

import importlib.util
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
        if folder in ("accelerate", "deepspeed"):
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
    raise UserError(
        f"recipe {name!r}: no such file, and no shipped recipe of that name; shipped are {', '.join(shipped)}"
    )


def tiny_models_folder() -> Path:
    """Holds `base` and `teacher`: what `tiny/base` in a recipe means."""
    return Path(__file__).parent.parent / "tiny"
