"""The command line. Nothing heavy is imported before a command needs it: `plan` and `status` answer at once."""

import argparse
import importlib
import io
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import PosttrainError, UserError

if TYPE_CHECKING:
    from posttrain.rounds.plan import Plan

STARTED = time.perf_counter()
"""When this process began, but for the start of Python itself."""
RUNS = Path("runs")
"""Where a run's root is made when --root does not say."""
EXIT_CODES = (
    "Exit codes: 0 done · 1 a stage failed · 2 recipe or data wrong · 3 waiting for a person · 4 stopped by a gate · "
    "75 interrupted."
)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0, or the exit code of the error it ended with."""
    _mend_streams()
    options = _parser().parse_args(arguments)
    # Last, so that a user's own stages are found here without hiding anything installed.
    sys.path.append(os.getcwd())
    try:
        options.command(options)
        sys.stdout.flush()
    except PosttrainError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("stopped. Same command goes on." if options.command is run else "stopped")
        sys.exit(75)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this Python complains again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _say(f"cannot read or write: {error}; make room or permission there, then give the same command again")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UserError.exit_code)


def _mend_streams() -> None:
    """Output goes nowhere where it was closed, and what its encoding lacks is shown as a question mark."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (for the life of the process)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say(text: str) -> None:
    from posttrain.rounds.view import VISIBLE

    print(f"posttrain: {text}".translate(VISIBLE), file=sys.stderr)


def _filled(text: str) -> str:
    """An argument that is not empty, as one is when a shell's variable is not set."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _path(text: str) -> Path:
    return Path(_filled(text))


def _number(least: float, kind: type[Any] = int) -> Any:
    """A reader of finite numbers of a kind that are not below `least`."""

    def read(text: str) -> Any:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: expected a number from {least:g} on")
        return value

    read.__name__ = kind.__name__  # what argparse calls it where the text is no number
    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain", description="Post-training of language models in rounds, from one recipe.",
        epilog=EXIT_CODES,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_plan(commands)
    _add_preflight(commands)
    _add_launch(commands)
    _add(commands, "recipes", recipes, "list the recipes that come with the package")
    init = _add(commands, "init", init_folder, "copy a recipe into a folder of your own, to start from")
    init.add_argument("folder", metavar="DIR", type=_path)
    init.add_argument("--recipe", default="quickstart", metavar="NAME", help="which one (default: quickstart)")
    status_parser = _add(commands, "status", status, "what of a run is finished; expected beside measured")
    status_parser.add_argument("run", metavar="RUN", type=_path, help="root of a run")
    _add_reports(commands)
    _add_looking(commands)
    return parser


def _add(commands: Any, name: str, command: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=_filled, help="a file, or the name of a shipped one")
    parser.add_argument(
        "--root", metavar="DIR", type=_path, help="where everything is written (default: runs/<recipe's name>)"
    )
    parser.add_argument(
        "--set",
        metavar="A.B=VALUE",
        action="append",
        default=[],
        dest="sets",
        help="change a value of the recipe; may be repeated",
    )


def _add_run(commands: Any) -> None:
    parser = _add(commands, "run", run, "run a recipe; the same command goes on where it stopped")
    _add_recipe(parser)
    parser.add_argument("--round", type=int, metavar="N", help="only this round (and the setup)")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="begin there; what is before must be finished")
    parser.add_argument("--until", metavar="STAGE", help="end after this stage, in the last round that is run")
    parser.add_argument("--only", metavar="STAGE", help="this stage alone; what it needs must be finished")
    parser.add_argument("--force", metavar="STAGE", help="make this stage again although it is finished")
    parser.add_argument(
        "--verify", action="store_true", help="check the hashes of all files that are reused, not only their sizes"
    )


def _add_plan(commands: Any) -> None:
    parser = _add(
        commands, "plan", plan, "show every stage of every round, and what it will cost, before anything runs"
    )
    _add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_preflight(commands: Any) -> None:
    parser = _add(
        commands, "preflight", preflight, "prove on the actual rows that what is trained is what will be served"
    )
    _add_recipe(parser)
    parser.add_argument("--stage", help="only this training stage, such as sft or round-2/dpo")


def _add_launch(commands: Any) -> None:
    text = "start this machine's processes of a training that several machines share"
    parser = _add(commands, "launch", launch, text)
    _add_recipe(parser)
    parser.add_argument("stage", metavar="STAGE", help="a stage with a launcher, such as round-1/sft")
    parser.add_argument("--print", action="store_true", dest="only_print", help="show command and environment instead")
    parser.add_argument("--machine-rank", type=_number(0), default=0, metavar="N", help="of this machine (default: 0)")


def _add_reports(commands: Any) -> None:
    parser = _add(commands, "report", report, "write a run's report as one HTML file, and print its essentials")
    parser.add_argument("run", metavar="RUN", type=_path, help="root of a run, finished or not")
    parser.add_argument("--out", metavar="FILE", type=_path, help="where to write it (default: RUN/report.html)")
    parser = _add(commands, "compare", compare, "compare two runs or checkpoints on the prompts that both answered")
    for name in ("A", "B"):
        parser.add_argument(name.lower(), metavar=name, type=_path, help="root of a run, or a checkpoint in it")
    parser.add_argument("--out", metavar="FILE", type=_path, help="where to write it (default: compare.html)")


def _add_looking(commands: Any) -> None:
    parser = _add(commands, "show", show, "read the rows of a run or of one artifact")
    parser.add_argument(
        "path", metavar="RUN|ARTIFACT", type=_filled, help="root of a run, or a folder in it such as RUN/round-1/sample"
    )
    parser.add_argument("--stage", help="only rows of this stage")
    tables = "rows, pairs, preferences, responses, prompts, documents, scores, rejects"
    parser.add_argument("--table", metavar="NAME", help=tables)
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="column (also made_by.model) or scorer; = != > < >= <= ~ (contains); may be repeated",
    )
    parser.add_argument("--sort", metavar="NAME", help="column or scorer, largest first")
    parser.add_argument("--columns", metavar="A,B", help="a line a row with these columns, instead of the messages")
    parser.add_argument("--limit", type=_number(0), default=10, metavar="N", help="how many (default: 10)")
    parser = _add(commands, "trace", trace, "where a row came from: candidates, scores, prompt, and what made them")
    parser.add_argument("run", metavar="RUN", type=_filled)
    parser.add_argument("row", metavar="ROW_ID", help="its id or the beginning of it")
    parser.add_argument("--show", action="store_true", help="print the conversation, trained tokens in colour")
    parser = _add(commands, "chat", chat, "talk to a checkpoint; reads lines, also from a pipe")
    parser.add_argument("model", metavar="RUN|CHECKPOINT", type=_filled)
    parser.add_argument("--tools", metavar="FILE", help="JSON list of tools the model may call")
    parser.add_argument("--temperature", type=_number(0, float), default=0.0, help="0, the default, is greedy")
    parser.add_argument("--max-new-tokens", type=_number(1), default=256, metavar="N")


def _plan(options: argparse.Namespace) -> tuple["Plan", Path]:
    from posttrain.rounds.plan import make_plan
    from posttrain.rounds.recipe import load_recipe
    from posttrain.rounds.shipped import find_recipe

    path = find_recipe(options.recipe)
    sys.path.append(str(path.resolve().parent))
    made = make_plan(load_recipe(path, options.sets), path)
    return made, options.root or RUNS / made.recipe.name


def run(options: argparse.Namespace) -> None:
    from posttrain.rounds.run import Choice, execute
    from posttrain.rounds.screen import RunScreen
    from posttrain.rounds.view import console, result

    made, root = _plan(options)
    choice = Choice(options.round, options.start, options.until, options.only, options.force)
    out = console()
    told = execute(made, root, RunScreen(out), choice, options.verify, STARTED)
    if told["evaluations"]:
        _write_page(root)
    for part in result(told, root):
        out.print(part)


def _write_page(root: Path) -> None:
    """The report as a page, unless it tells the newest state already. The run is done, so a fault only costs it."""
    from posttrain.rounds.report import PAGE, REPORT

    page = root / PAGE
    if page.exists() and page.stat().st_mtime_ns >= (root / REPORT).stat().st_mtime_ns:
        return
    try:
        _reporting("run").report(root, page)
    except UserError as error:
        _say(f"{page} was not written: {error}")


def plan(options: argparse.Namespace) -> None:
    from posttrain.rounds.plan import as_dict, runs, state

    made, root = _plan(options)
    if options.json:
        print(json.dumps(as_dict(made, root), indent=1, ensure_ascii=False))
        return
    from posttrain.rounds.view import console, plan_table, plan_total

    states = {node.id: state(node, root, made) for node in made.nodes}
    out = console()
    out.print(plan_table(made, root, states))
    out.print(plan_total(made, [node for node in made.nodes if runs(states[node.id], made.recipe)]))


def preflight(options: argparse.Namespace) -> None:
    from posttrain.inspect.proving import prove
    from posttrain.rounds.view import console

    made, root = _plan(options)
    prove(made, root, options.stage, console())


def launch(options: argparse.Namespace) -> None:
    from posttrain.rounds.launch import find_launcher, launched_node, launcher_of, written
    from posttrain.rounds.run import order_file

    made, root = _plan(options)
    node = launched_node(made, options.stage)
    launcher = find_launcher(launcher_of(node.config), made.recipe.machine, made.recipe.tree.folders)
    order = order_file(node, root).absolute()
    command, environment = launcher.command(order, options.machine_rank), launcher.environment()
    if options.only_print:
        print(written(command, environment))
        return
    if not order.is_file():
        raise UserError(f"{order} is not there; give `posttrain run` on the first machine before")
    os.execvpe(command[0], command, environment)


def recipes(options: argparse.Namespace) -> None:
    from posttrain.rounds.shipped import purpose, shipped_recipes

    shipped = shipped_recipes()
    width = max(map(len, shipped))
    for name, path in shipped.items():
        print(f"{name:<{width}}  {purpose(path)}")


def init_folder(options: argparse.Namespace) -> None:
    from posttrain.rounds.shipped import copy_recipe

    recipe = copy_recipe(options.recipe, options.folder)
    print(f"{recipe} is yours to change.\n  posttrain plan {recipe}\n  posttrain run {recipe}")


def status(options: argparse.Namespace) -> None:
    from posttrain.rounds.report import assemble
    from posttrain.rounds.view import console, result, status_table

    report = assemble(options.run)
    out = console()
    out.print(status_table(report))
    for part in result(report, options.run):
        out.print(part)


def report(options: argparse.Namespace) -> None:
    from posttrain.rounds.view import console

    _reporting("run").report(options.run, options.out, console())


def compare(options: argparse.Namespace) -> None:
    from posttrain.rounds.view import console

    _reporting("compare").compare(options.a, options.b, options.out, console())


def _reporting(name: str) -> Any:
    """A module of the report, by its dotted name: the core imports nothing that is built on it."""
    return importlib.import_module(f"eval.report.{name}")


def show(options: argparse.Namespace) -> None:
    from posttrain import terminal
    from posttrain.inspect import load_at
    from posttrain.rounds.view import console

    found, stage = load_at(options.path)
    asked = (options.table, options.where, options.sort, options.columns, options.limit)
    terminal.show(found, options.stage or stage, *asked, console())


def trace(options: argparse.Namespace) -> None:
    from posttrain.inspect import load
    from posttrain.inspect.trace import trace
    from posttrain.rounds.view import console

    trace(load(options.run), options.row, options.show, console())


def chat(options: argparse.Namespace) -> None:
    from posttrain import terminal
    from posttrain.rounds.view import console

    terminal.chat(options.model, options.tools, options.temperature, options.max_new_tokens, console())
