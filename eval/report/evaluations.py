"""The finished evaluations of a run, and what each asked, heard and graded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from eval.report.page import short
from eval.table import read_grades
from posttrain.data.rows import Prompt, Response, Sample
from posttrain.data.tables import iter_table
from posttrain.errors import UserError
from posttrain.inspect.run import Run, Stage, load_at
from posttrain.rounds.plan import STORE

EVALUATION, KEPT = "evaluation", "evaluation_kept"


@dataclass(frozen=True)
class Evaluation:
    """One column of the report."""

    run: Run
    id: str
    title: str
    before: str | None
    """Id of the evaluation it was compared with, where there is one."""
    model: str
    """Id of the stage that made the checkpoint, or where the model came from."""
    folder: Path
    prompt_folders: tuple[Path, ...]
    results: dict[str, Any]
    """What the stage summed up (`eval.run`)."""

    @cached_property
    def grades(self) -> dict[str, float]:
        """Prompt id → mean grade, of what could be graded."""
        return read_grades(self.folder)

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """The prompts by id, without their texts, which may be long."""
        return {id: prompt for folder in self.prompt_folders for id, prompt in _without_texts(folder).items()}

    def full_prompts(self, ids: Iterable[str]) -> dict[str, Prompt]:
        """Some prompts by id, with their texts."""
        wanted = set(ids)
        every = (prompt for folder in self.prompt_folders for prompt in iter_table(folder, "prompts"))
        return {prompt.id: prompt for prompt in every if prompt.id in wanted}

    @cached_property
    def answers(self) -> dict[str, Response]:
        """The first answer to each prompt."""
        found: dict[str, Response] = {}
        for response in iter_table(self.folder, "responses"):
            found.setdefault(response.prompt_id, response)
        return found

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """How the first answer to each prompt was graded, and why."""
        found: dict[str, Sample] = {}
        for sample in iter_table(self.folder, "samples"):
            found.setdefault(sample.prompt_id, sample)
        return found


@cache
def _without_texts(folder: Path) -> dict[str, Prompt]:
    return {prompt.id: replace(prompt, messages=(), tools=()) for prompt in iter_table(folder, "prompts")}


def evaluations(run: Run) -> list[Evaluation]:
    """All finished ones, in the order they ran."""
    finished = {stage.id: stage for stage in run.stages}
    entries = {entry["id"]: entry for entry in run.plan.get("stages", ())}
    own = [entry for id, entry in entries.items() if EVALUATION in entry["provides"] and id in finished]
    return [_evaluation(run, entry, entries, finished[entry["id"]]) for entry in own]


def _evaluation(run: Run, entry: dict[str, Any], entries: dict[str, Any], stage: Stage) -> Evaluation:
    inputs = entry["inputs"]
    folders = tuple(run.root / STORE / entries[of]["folder"] for of in inputs["prompts"])
    return Evaluation(
        run, stage.id, entry["title"], inputs.get("before"), inputs["model"], stage.folder, folders,
        stage.manifest.summary,
    )  # fmt: skip


def wants_evaluation(run: Run) -> bool:
    """Whether the plan has an evaluation at all."""
    return any(EVALUATION in entry["provides"] for entry in run.plan.get("stages", ()))


def kept(run: Run, columns: list[Evaluation], before_round: int | None = None) -> Evaluation | None:
    """The evaluation of what the run ends with (or had before a round): what the last gate kept, else the newest."""
    limit = run.plan["rounds"] + 1 if before_round is None else before_round
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    own = [column for column in columns if entries[column.id]["round"] < limit]
    gates = [stage for stage in run.stages if KEPT in entries[stage.id]["provides"] and stage.round < limit]
    newest_round = max((entries[column.id]["round"] for column in own), default=0)
    if gates and gates[-1].round >= newest_round:
        id = kept_evaluation(run, gates[-1].id)
        return next((column for column in columns if column.id == id), None)
    return own[-1] if own else None


def kept_evaluation(run: Run, gate: str) -> str | None:
    """Id of the evaluation that a gate kept; a gate that kept the model before kept what was kept then, which may not
    have been evaluated."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    of_id = {stage.id: stage for stage in run.stages}
    inputs = entries[gate]["inputs"]
    id = inputs.get("previous_evaluation" if of_id[gate].manifest.summary.get("kept") == "previous" else "evaluation")
    return kept_evaluation(run, id) if id and KEPT in entries[id]["provides"] else id


def evaluation_at(path: str | Path) -> Evaluation:
    """Of a run's root, the evaluation of what it ends with; of a folder in it, that of the checkpoint there.

    Raises UserError where the path is neither, and where nothing was evaluated.
    """
    run, stage = load_at(path)
    if not run.plan:
        raise UserError(f"{path} stands alone, without its run; name a run's root or a folder in it (round-1/dpo)")
    columns = evaluations(run)
    if not columns:
        raise UserError(f"{run.root} has no finished evaluation to compare; {_why_none(run)}")
    if stage is None:
        if (found := kept(run, columns)) is None:
            raise UserError(f"{path} ends with a model that was never evaluated; name a checkpoint in it (round-1/dpo)")
        return found
    own = {column.id: column for column in columns} | {column.model: column for column in columns}
    id = kept_evaluation(run, stage) if _is_gate(run, stage) else stage
    if id not in own:
        known = ", ".join(dict.fromkeys(short(column.model) for column in columns))
        raise UserError(f"{path} was not evaluated in its run; evaluated are {known}")
    return own[id]


def _is_gate(run: Run, stage: str) -> bool:
    return any(entry["id"] == stage and KEPT in entry["provides"] for entry in run.plan["stages"])


def _why_none(run: Run) -> str:
    if wants_evaluation(run):
        return "run it until one is done"
    return "add `evaluate` to its recipe and run it again, which keeps what is finished"
