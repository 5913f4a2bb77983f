"""`posttrain preflight`: a recipe's training stages are proven on the rows that exist, before anything is trained.

Stages that only read and mix rows are run first, as `posttrain run` would; a stage whose rows a model has yet to make
is told with the stage that must run before.
"""

import importlib
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from posttrain.errors import UserError
from posttrain.inspect.run import nearest
from posttrain.rounds.hub import pinned_folder
from posttrain.rounds.plan import Node, Plan, artifact, flat, runs, state
from posttrain.rounds.run import Choice, execute, is_model
from posttrain.rounds.screen import RunScreen
from posttrain.stages import External, Job
from posttrain.train.prepare_spec import KIND as PREPARED
from posttrain.train.settings import TrainingConfig

MODELS = ("init", "reference", "logprobs")
"""Inputs of a training stage that are models, or what a model says of its rows."""


def prove(plan: Plan, root: Path, stage: str | None, out: Console) -> None:
    """Print the report of every training stage (of that id or name, with `stage`) whose rows exist or can be read.

    Raises UserError naming the rows that fail, an unknown stage, and when no stage has rows yet.
    """
    waiting, failures, done = [], [], 0
    for node in training_nodes(plan, stage):
        if (missing := _not_made(node, plan, root)) and any(_runs_a_model(one) for one in missing):
            until = f"posttrain run {plan.path} --round {node.round} --until {missing[-1].name}"
            waiting.append(f"{node.id} has no rows yet: {missing[-1].id} must run first (`{until}`)")
            continue
        for one in missing:
            execute(plan, root, RunScreen(out), Choice(only=one.id))
        done += 1
        try:
            _prove_one(node, plan, root, out)
        except UserError as error:
            failures.append(f"{node.id}: {error}")
    if failures:
        raise UserError("\n".join(failures))
    if not done:
        raise UserError(waiting[0])
    for line in waiting:
        out.print(Text(line, style="dim"))


def training_nodes(plan: Plan, stage: str | None) -> list[Node]:
    """The training stages of the plan, or those of one id or name."""
    every = [node for node in plan.nodes if isinstance(node.config, TrainingConfig)]
    if not every:
        raise UserError(f"{plan.path} has no training stage, so there is nothing to prove")
    if stage is None:
        return every
    chosen = [node for node in every if stage in (node.id, node.name)]
    if not chosen:
        names = dict.fromkeys(node.name for node in every)
        raise UserError(f"--stage {stage}: no training stage has that name{nearest(stage, names)}")
    return chosen


def _not_made(node: Node, plan: Plan, root: Path) -> list[Node]:
    """Everything that has to run before the node's rows exist, in the plan's order."""
    wanted: set[str] = set()

    def visit(one: Node) -> None:
        if one.id not in wanted and runs(state(one, root, plan), plan.recipe):
            wanted.add(one.id)
            for parent in one.parents:
                visit(parent)

    def visit_prepared(one: Node) -> None:
        """Of the models it starts from, those that only link a model beside the recipe's template."""
        for item in filter(is_model, one.parents):
            (visit if item.provides(PREPARED) else visit_prepared)(item)

    for name, value in node.inputs.items():
        if name not in MODELS:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Node):
                    visit(item)
    visit_prepared(node)
    return [one for one in plan.nodes if one.id in wanted]


def _runs_a_model(node: Node) -> bool:
    return not node.provides(PREPARED) and any(is_model(item) for item in flat(node.inputs))


def _prove_one(node: Node, plan: Plan, root: Path, out: Console) -> None:
    from posttrain.chat import Renderer
    from posttrain.train.preflight import read_report
    from posttrain.train.preflight_view import print_report

    module = importlib.import_module(node.spec.module)
    if not hasattr(module, "load"):
        raise UserError(f"{node.spec.module} has no load(job, renderer), which tells what it trains on")
    inputs = {name: _path(value, root, model=name in MODELS) for name, value in node.inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            config=node.config, inputs=inputs, folder=Path(folder), seed=node.seed, round=node.round, name=node.name,
            machine=plan.recipe.machine,
        )  # fmt: skip
        try:
            module.load(job, Renderer.from_pretrained(inputs["init"]))
        finally:
            if report := read_report(job.folder):
                print_report(report, out)


def _path(value: Any, root: Path, model: bool) -> Any:
    """Folders of artifacts, sources of what is from outside; of a checkpoint not yet trained, what it starts from: that
    has its tokenizer, template and context."""
    if isinstance(value, list):
        return [_path(item, root, model) for item in value]
    if isinstance(value, External):
        return pinned_folder(value.source, value.revision) if value.revision else value.source
    folder = artifact(value, root)
    if model and not folder.exists():
        below = next((item for item in flat(value.inputs) if is_model(item)), None)
        if below is not None:
            return _path(below, root, model)
    return folder
