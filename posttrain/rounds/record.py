"""`plan.json`: what a run was asked to do, for the commands that look at it later without its recipe."""

import json
from pathlib import Path
from typing import Any

from posttrain.artifacts import write_durably
from posttrain.errors import UserError
from posttrain.rounds.plan import Node, Plan, as_dict

PLAN = "plan.json"


def write_plan(plan: Plan, root: Path) -> dict[str, Any]:
    """Write the resolved plan, unless it stands there already, and return it."""
    record = as_dict(plan, root) | {"recipe": str(plan.path.absolute())}
    for stage, node in zip(record["stages"], plan.nodes, strict=True):
        del stage["state"]  # of the moment; what is finished is asked of the store
        stage |= {"title": title(node), "folder": node.folder_name, "provides": list(node.kinds)}
    write_if_new(root / PLAN, record)
    return record


def read_plan(root: Path) -> dict[str, Any]:
    """The plan of a run. Raises UserError when `root` is not the root of one."""
    try:
        record = json.loads((root / PLAN).read_text(encoding="utf-8"))
        for stage in record["stages"]:
            str(stage["folder"])
        return dict(record)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{root} is not the root of a run: it has no {PLAN}; `posttrain run` prints the root it uses"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / PLAN} cannot be read ({error}); run the recipe again to write it anew") from error


def title(node: Node) -> str:
    """`base`, `round 1 dpo`: the instance of an expanded stage, else the stage's name."""
    name = node.name.partition("-")[2] if node.spec.expand and "-" in node.name else node.name
    return f"round {node.round} {name}" if node.round else name


def write_if_new(path: Path, value: Any) -> None:
    """Write JSON durably, but leave an equal file alone."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_durably(path, text)
