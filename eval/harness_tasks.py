"""Tasks of lm-eval as prompts: loaded, set as a suite says, and each record's first request as a row. Conversations
travel through the harness as JSON text, in place of rendered prompts.
"""

import contextlib
import difflib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from posttrain.checks.language import identify
from posttrain.config import Config
from posttrain.data.rows import Check, Message, Prompt, content_id
from posttrain.errors import PosttrainError, UserError
from posttrain.machine import Machine

HARNESS, TASKS = "lm_eval.json", "tasks"
"""In a suite's folder its settings, and the task files of one's own."""
CODE_ALLOWED = "HF_ALLOW_CODE_EVAL"
"""Without this variable the metric `code_eval`, which HumanEval and MBPP try as they are loaded, runs nothing."""
Instance = Any
Tasks = dict[str, Any]


class Settings(Config):
    """Fields of `LmEvalConfig` that make the prompts; described there."""

    n: int
    seed: int
    max_new_tokens: int
    tasks: tuple[str, ...]
    shots: int | None
    system: str
    metric: str


def read_settings(folder: Path) -> Settings:
    return Settings.model_validate_json((folder / HARNESS).read_text(encoding="utf-8"))


def load_tasks(settings: Settings, folder: Path, machine: Machine) -> Tasks:
    """The tasks with their data: `{"tasks": {name: task}, "groups": …}`. `folder` is the suite's.

    Raises UserError without the harness, for names it does not have, for tasks that cannot be loaded (their data, a
    package of their own), and for those that run code that the model wrote where the machine does not allow that.
    """
    own = folder / TASKS
    manager = _manager(settings, own)
    # Data files are named in the YAML, seen from the task files.
    at_home = contextlib.chdir(own if own.is_dir() else folder)
    allowed = machine.untrusted_code == "run_unsandboxed"
    if allowed:
        os.environ[CODE_ALLOWED] = "1"
    try:
        with told(f"the tasks {', '.join(settings.tasks)} of lm-eval cannot be loaded"), at_home:
            loaded: Tasks = manager.load(list(settings.tasks))
    except UserError as error:
        if not allowed and CODE_ALLOWED in str(error.__cause__):
            raise _unsafe(", ".join(settings.tasks)) from error
        raise
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) and not allowed:
            raise _unsafe(name)
        _configure(task, settings)
    return loaded


def _unsafe(task: str) -> UserError:
    return UserError(
        f"the task {task} of lm-eval runs code that the model writes, outside of any sandbox; use "
        "eval.suites.code, or set machine.untrusted_code: run_unsandboxed"
    )


def _manager(settings: Settings, own: Path) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("eval.suites.lm_eval needs the harness: pip install 'posttrain[lm-eval]'") from None
    manager = TaskManager(include_path=str(own), include_defaults=False) if own.is_dir() else all_tasks()
    if not set(settings.tasks) <= set(manager.all_tasks) and own.is_dir():
        manager = TaskManager(include_path=str(own))
    for name in settings.tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, 1)
            raise UserError(f"lm-eval has no task {name!r}{f'; did you mean {near[0]}?' if near else ''}")
    return manager


@cache
def all_tasks() -> Any:
    """The harness's own tasks; seconds, since it reads thousands of files."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever the harness, its data sets and its task files raise, in a sentence."""
    try:
        yield
    except PosttrainError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{what} ({type(error).__name__}: {reason})") from error


def _configure(task: Any, settings: Settings) -> None:
    """Examples and length as the suite says, else as the task does; the harness's own way with tasks that say none."""
    if settings.shots is not None:
        task.set_config(key="num_fewshot", value=settings.shots)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=settings.seed)
    if settings.max_new_tokens and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value={"max_gen_toks": settings.max_new_tokens}, update=True)


def as_json(history: list[Message], add_generation_prompt: bool = True) -> str:
    """A conversation as the text that the harness takes for a rendered one. Without `add_generation_prompt` its last
    message is how the answer begins."""
    if not add_generation_prompt:
        history = [*history[:-1], {**history[-1], "prefix": True}]
    return json.dumps(history, ensure_ascii=False)


def instances_of(tasks: Tasks, settings: Settings) -> list[Instance]:
    """Every request of the tasks."""
    found = []
    for name, task in tasks["tasks"].items():
        with told(f"the prompts of lm-eval's task {name} cannot be made"):
            task.build_all_requests(
                limit=settings.n, rank=0, world_size=1, system_instruction=settings.system or None,
                apply_chat_template=True, fewshot_as_multiturn=True, chat_template=as_json,
            )  # fmt: skip
            found += task.instances
    return found


Doc = tuple[str, int]
"""A task and the number of a record in it."""


def by_doc(instances: Iterable[Instance]) -> dict[Doc, list[Instance]]:
    """The requests of each record, in their order; one that is wanted several times stands once."""
    found: dict[Doc, list[Instance]] = defaultdict(list)
    for instance in instances:
        own = found[str(instance.task_name), int(instance.doc_id)]
        if not any(instance is other for other in own):
            own.append(instance)
    return found


def suite_prompts(name: str, instances: Iterable[Instance]) -> dict[Doc, Prompt]:
    """A prompt for each record: its first request. The id covers all of them."""
    return {doc: _prompt(name, doc, own) for doc, own in by_doc(instances).items()}


def _prompt(name: str, doc: Doc, instances: Sequence[Instance]) -> Prompt:
    task, number = doc
    messages = conversation(str(instances[0].args[0]))
    about: dict[str, Any] = {"stage": name, "suite": "lm_eval", "category": task, "doc": number}
    if instances[0].request_type == "loglikelihood":
        about["choices"] = [str(instance.args[1]) for instance in instances]
    if messages[-1].get("prefix"):
        about["prefix"] = messages[-1]["content"]
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    asked = tuple(message for message in messages if not message.get("prefix"))
    id = content_id(task, number, [[str(part) for part in instance.args] for instance in instances])
    return Prompt(asked, name, identify(text)[0], "lm_eval", check=Check("harness"), made_by=about, id=id)


def conversation(context: str) -> tuple[Message, ...]:
    """What `as_json` wrote; any other text is a user's."""
    try:
        found = json.loads(context)
    except ValueError:
        found = None
    if isinstance(found, list) and found and all(isinstance(one, dict) and "role" in one for one in found):
        return tuple(found)
    return ({"role": "user", "content": context},)
