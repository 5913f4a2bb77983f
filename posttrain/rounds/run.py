"""Running a plan: each artifact under its lock, reused or made by the warm worker. No torch here.

Root layout: `store/` holds the artifacts under their keys; `setup/` and `round-1/` are links to them by name; `final`
links to the newest finished checkpoint; `plan.json` and `report.json` say what was asked and what came out.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from posttrain import artifacts
from posttrain.artifacts import CHECKPOINTS, JOURNAL, PART, lock, publish, read_manifest, write_durably
from posttrain.errors import Interrupted, PosttrainError, UserError, WaitingForPerson
from posttrain.machine import INLINE
from posttrain.rounds.launch import Launched, find_launcher, launcher_of
from posttrain.rounds.plan import STORE, Node, Plan, artifact, flat, parents_record, runs, state
from posttrain.rounds.process import Process, Worker
from posttrain.rounds.record import write_plan
from posttrain.rounds.report import write_report
from posttrain.rounds.worker import WORK, Order
from posttrain.stages import External
from posttrain.train.prepare_spec import KIND as MODEL

FINAL = "final"
WORKER_LOG = "worker.log"


ENDINGS: dict[type, str] = {Interrupted: "interrupted", WaitingForPerson: "waiting"}
"""How the report calls the end of a run that neither finished nor failed."""
BARE_STOP = "stopped"
"""Message of an interruption between stages."""


class Screen(Protocol):
    """Where a run tells what it does."""

    def begin(self, plan: Plan, chosen: int, todo: list[Node]) -> None: ...
    def stage_begins(self, node: Node) -> None: ...
    def hear(self, node: Node, event: dict[str, Any]) -> None: ...
    def stage_ends(self, node: Node, event: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Choice:
    """Which of the plan's stages a command is about: `sft`, `evaluate` (all its instances) or `round-1/sft`."""

    round: int | None = None
    start: str | None = None
    """The first stage to look at; those before it must be finished."""
    until: str | None = None
    """The last one, in its last round."""
    only: str | None = None
    force: str | None = None
    """Made again although it is finished."""


def execute(
    plan: Plan, root: Path, screen: Screen, choice: Choice | None = None, check_hashes: bool = False,
    began: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Bring every chosen stage to a finished artifact and return the report. `began` is when the command did, by
    `time.perf_counter`; None means now.

    Raises StageFailed, UserError, StoppedByGate, WaitingForPerson as the stages do, and Interrupted on SIGINT or
    SIGTERM. Whatever was finished before stays usable.
    """
    began = time.perf_counter() if began is None else began
    choice = choice or Choice()
    chosen = choose(plan, choice)
    try:
        (root / STORE / WORK).mkdir(parents=True, exist_ok=True)
        write_plan(plan, root)
        with _interruptible():
            return _Run(plan, root, screen, choice, check_hashes, began).go(chosen)
    except BrokenPipeError:
        raise Interrupted("stopped, because nobody reads this output any more. Same command goes on.") from None
    except OSError as error:
        raise UserError(
            f"cannot write below {root}: {error}; make room or permission there, or give another --root"
        ) from error


def choose(plan: Plan, choice: Choice) -> list[Node]:
    """The chosen nodes in the plan's order. Raises UserError for a name or round the plan does not have."""
    nodes = list(plan.nodes)
    within = f" in round {choice.round}" if choice.round is not None else ""
    if choice.round is not None:
        if not 1 <= choice.round <= plan.recipe.rounds:
            raise UserError(f"--round {choice.round}: the recipe has rounds 1 to {plan.recipe.rounds}")
        nodes = [node for node in nodes if node.round in (0, choice.round)]
    first, last = 0, len(nodes)
    if choice.start:
        first = nodes.index(_named(nodes, choice.start, f"--from {choice.start!r}", within)[0])
    if choice.until:
        last = nodes.index(_named(nodes, choice.until, f"--until {choice.until!r}", within)[-1]) + 1
    if choice.start and choice.until and last <= first:
        raise UserError(f"--until {choice.until!r} comes before --from {choice.start!r}, so there is nothing between")
    nodes = nodes[first:last]
    if choice.only:
        nodes = _named(nodes, choice.only, f"--only {choice.only!r}", within)
    if choice.force:
        _named(nodes, choice.force, f"--force {choice.force!r}", " in what is chosen")
    return nodes


def _named(nodes: list[Node], name: str, option: str, within: str) -> list[Node]:
    found = [node for node in nodes if _has_name(node, name)]
    if not found:
        names = dict.fromkeys(node.name for node in nodes)
        raise UserError(f"{option}: no such stage{within}; there are {', '.join(names)}")
    return found


def _has_name(node: Node, name: str) -> bool:
    return name in (node.id, node.name) or (node.spec.expand is not None and node.name.startswith(f"{name}-"))


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 (a cluster's warning) raise Interrupted here, wherever the run waits."""

    def handler(number: int, frame: Any) -> None:
        raise Interrupted(BARE_STOP)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Run:
    """One command's way through its chosen stages."""

    def __init__(self, plan: Plan, root: Path, screen: Screen, choice: Choice, check_hashes: bool, began: float):
        self.plan, self.root, self.screen, self.choice, self.check_hashes = plan, root, screen, choice, check_hashes
        self.worker: Worker | None = None
        self.began = began
        self.made: dict[str, float] = {}
        """Node id → seconds of the stage's own work, for those made by this command."""

    def go(self, chosen: list[Node]) -> dict[str, Any]:
        todo = [
            node for node in chosen if self._forced(node) or runs(state(node, self.root, self.plan), self.plan.recipe)
        ]
        if todo:
            self._worker()
        self.screen.begin(self.plan, len(chosen), todo)
        try:
            for node in chosen:
                self._bring(node, chosen)
        except PosttrainError as error:
            self._end()
            with suppress(OSError, PosttrainError):  # the reason it stopped is what has to be told
                self._report(ENDINGS.get(type(error), "failed"))
            if error.args == (BARE_STOP,):
                raise Interrupted(f"{BARE_STOP}. Same command goes on.") from None
            raise
        finally:
            self._end()
        return self._report("done")

    def _end(self) -> None:
        self.screen.close()
        self._close_worker()

    def _report(self, ended: str) -> dict[str, Any]:
        link_all(self.plan, self.root)
        wall = time.perf_counter() - self.began
        return write_report(self.root, self.made, wall, ended)

    def _bring(self, node: Node, chosen: list[Node]) -> None:
        """Leave `node` finished: reused, or made now."""
        for parent in node.parents:
            if parent not in chosen and read_manifest(artifact(parent, self.root)) is None:
                raise UserError(
                    f"{node.id} needs {parent.id}, which is not finished; run without --from, --only or --round first"
                )
        waiting = f"{node.id} is being made by another run; waiting for it"
        with lock(self._work(node, "lock"), waiting, self.screen.say):
            found = self._state(node)
            if not self._forced(node) and not runs(found, self.plan.recipe):
                if found == "code changed":
                    self.screen.say(f"{node.id}: reused, though its code has changed since (on_code_change: reuse)")
                return
            if found.startswith("broken"):
                self.screen.say(f"{node.id}: made again, because {found.removeprefix('broken: ')}")
            self._make(node)
            _link(self.plan, self.root, node)

    def _state(self, node: Node) -> str:
        found = state(node, self.root, self.plan)
        if self.check_hashes and not runs(found, self.plan.recipe):
            try:
                artifacts.verify(artifact(node, self.root))
            except UserError as error:
                return f"broken: {error}"
        return found

    def _make(self, node: Node) -> None:
        folder = artifact(node, self.root)
        part = folder.with_name(folder.name + PART)
        order = self._order(node, part)
        self._ready_part(node, part, order)
        if not _finished(part, order):
            self._perform(node, part, order)
        replaced = folder.exists()
        publish(part, folder)
        if replaced:
            _remove_replaced(folder)

    def _perform(self, node: Node, part: Path, order: Order) -> None:
        self.screen.stage_begins(node)
        progress: dict[str, Any] = {}

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                progress.update(event)
            self.screen.hear(node, event)

        worker = self._process(node, order)
        try:
            event = worker.perform(order, hear)
        except Interrupted:
            worker.stop(hear)
            raise Interrupted(_stopped(node, part, progress)) from None
        except PosttrainError:
            self._close_worker()
            raise
        finally:
            if worker is not self.worker:
                worker.close()
        self.made[node.id] = event["measured"]["seconds"]
        self.screen.stage_ends(node, event)

    def _order(self, node: Node, part: Path) -> Order:
        def of(item: Any) -> Any:
            if isinstance(item, list):
                return [of(i) for i in item]
            if isinstance(item, External):
                if item.served:
                    return {"served": item.served.model_dump(mode="json")}
                return {"source": item.source} | ({"revision": item.revision} if item.revision else {})
            return {"artifact": str(artifact(item, self.root).absolute())}

        return Order(
            id=node.id, module=node.spec.module, kind=" ".join(node.kinds), key=node.key,
            name=node.name, round=node.round, seed=node.seed, part=str(part.absolute()),
            config=node.config.model_dump(mode="json"), machine=self.plan.recipe.machine.model_dump(mode="json"),
            inputs={name: of(value) for name, value in node.inputs.items()},
            parents=parents_record(node, self.root), source_hash=node.source_hash,
            loads_model=any(is_model(item) for item in flat(node.inputs)),
        )  # fmt: skip

    def _ready_part(self, node: Node, part: Path, order: Order) -> None:
        """Keep what an earlier run began, unless it was begun from other inputs, or is to be made anew."""
        begun: dict[str, Any] = {"parents": order.parents}
        if self.plan.recipe.on_code_change == "rerun":
            begun["source_hash"] = order.source_hash
        stamp, text = self._work(node, "begun"), json.dumps(begun, sort_keys=True)
        if part.exists() and (self._forced(node) or not stamp.exists() or stamp.read_text(encoding="utf-8") != text):
            shutil.rmtree(part)
        write_durably(stamp, text)

    def _forced(self, node: Node) -> bool:
        return bool(self.choice.force) and _has_name(node, str(self.choice.force)) and node.id not in self.made

    def _work(self, node: Node, suffix: str) -> Path:
        return self.root / STORE / WORK / f"{node.folder_name}.{suffix}"

    def _worker(self) -> Worker:
        if self.worker is None:
            self.worker = Worker(self.plan.recipe.machine, self.root / WORKER_LOG)
        return self.worker

    def _process(self, node: Node, order: Order) -> Process:
        """What runs the stage: the warm worker, or processes of its own."""
        name = launcher_of(node.config)
        if name == INLINE:
            return self._worker()
        launcher = find_launcher(name, self.plan.recipe.machine, self.plan.recipe.tree.folders)
        return Launched(launcher, order, order_file(node, self.root), self.root / WORKER_LOG)

    def _close_worker(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None


def order_file(node: Node, root: Path) -> Path:
    """What the processes of a launched stage read."""
    return root / STORE / WORK / f"{node.folder_name}.order.json"


def is_model(item: Any) -> bool:
    """Whether an input of a stage is a model."""
    if isinstance(item, External):
        return item.size.parameters > 0 and item.served is None
    return any(item.provides(kind) for kind in ("checkpoint", "reward_model", MODEL))


def _stopped(node: Node, part: Path, progress: dict[str, Any]) -> str:
    where = f"stopped in {f'round {node.round}' if node.round else 'setup'}, {node.name}"
    if not progress:
        return f"{where}. Same command goes on."
    far = f"{progress['done']:,} of {progress['total']:,}"
    if any(part.glob(f"*{JOURNAL}")) and progress["unit"] != "steps":
        return f"{where} ({far} kept). Same command goes on."
    if kept := sorted((part / CHECKPOINTS).glob("step-*")):
        step = int(kept[-1].name.removeprefix("step-"))
        return f"{where} (step {step:,} of {progress['total']:,} kept). Same command goes on."
    return f"{where} ({far} {progress['unit']}). Same command goes on, this stage from its start."


def _finished(part: Path, order: Order) -> bool:
    """Whether a run was killed after the manifest was written and before the folder got its name."""
    try:
        manifest = read_manifest(part)
    except UserError:
        return False
    return manifest is not None and (manifest.key, manifest.parents) == (order.key, order.parents)


def _remove_replaced(folder: Path) -> None:
    for old in folder.parent.glob(f"{folder.name}.broken-*"):
        shutil.rmtree(old, ignore_errors=True)


def _link(plan: Plan, root: Path, node: Node) -> None:
    """`round-1/sft` → the artifact, and `final` → the newest finished checkpoint of the plan."""
    if not (artifact(node, root) / artifacts.MANIFEST).exists():
        return
    _point(root / node.id, Path("..") / STORE / node.folder_name)
    done = [n for n in plan.nodes if n.provides("checkpoint") and (artifact(n, root) / artifacts.MANIFEST).exists()]
    if done:
        _point(root / FINAL, Path(STORE) / done[-1].folder_name)


def link_all(plan: Plan, root: Path) -> None:
    for node in plan.nodes:
        _link(plan, root, node)


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, in one step."""
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    link.parent.mkdir(exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target, target_is_directory=True)
    os.replace(temporary, link)
