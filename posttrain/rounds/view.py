"""What a person sees of a plan, a run and its result. Every number here was computed elsewhere."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from posttrain.rounds.plan import Node, Plan, flat
from posttrain.rounds.report import PAGE, REPORT, direction
from posttrain.stages import External
from posttrain.train.prepare_spec import KIND as MODEL

STARTS = ("init", "model", "teacher", "of", "candidate")
"""Names of inputs that are the model a stage starts from or runs, the first one found is shown."""
MARKS = {1: "▲", -1: "▼", 0: " "}
BAR_CELLS = 10
KEPT_SECONDS = 0.005
"""Reports that come faster than this are of chunks kept from an earlier run, and say nothing of speed."""
SPARE_WIDTH = 400
"""Columns of output that is no terminal: a line of a table is never folded."""
COUNTS = ("k", "M", "G", "T", "P", "E")
BYTES = (" GiB", " TiB", " PiB", " EiB")


def console(stream: Any = None) -> Console:
    stream = stream or sys.stdout
    width = None if stream.isatty() else SPARE_WIDTH
    return Console(file=stream, highlight=False, width=width, soft_wrap=True)


def count(number: float) -> str:
    """`214`, `9,140`, `61k`, `1.3M`: three figures are enough for an estimate."""
    return f"{number:,.0f}" if number < 10_000 else _figures(number / 1000, 1000, COUNTS)


def _figures(number: float, step: int, units: tuple[str, ...]) -> str:
    """Three figures in the first unit that needs no more before the point; the last unit takes what is left."""
    for unit in units[:-1]:
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= step
    return f"{number:.3g}{units[-1]}"


def clock(seconds: float) -> str:
    """`0:41`, `12:05`, `3:02:10`; with days in front when it takes days."""
    whole = round(seconds)
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}:{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def size(byte_count: float) -> str:
    """`61 MiB`, `1.28 GiB`, `1.12 TiB`."""
    if byte_count < 2**30:
        return f"{byte_count / 2**20:.0f} MiB"
    return _figures(byte_count / 2**30, 1024, BYTES)


def grid(*columns: str, title: str = "") -> Table:
    """A table without lines. Columns marked `>` stand right; those marked `~` fold where a terminal is narrow."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left", header_style="dim"
    )
    for column in columns:
        right, folds = column.startswith(">"), column.startswith("~")
        name = column.lstrip(">~")
        table.add_column(name, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    return table


def plan_table(plan: Plan, root: Any, states: dict[str, str]) -> Table:
    """All stages, those of a round together."""
    counts = f"{_plural(plan.recipe.rounds, 'round')} · {_plural(len(plan.nodes), 'stage')}"
    head = f"{plan.recipe.name} · {counts} · root {root}"
    priced = [">cost"] if any(node.size.cost for node in plan.nodes) else []
    table = grid("stage", "~start", ">rows", ">tokens", ">memory", ">time", *priced, "key", "state", "~", title=head)
    place = None
    for node in plan.nodes:
        if node.round != place:
            place = node.round
            table.add_row(Text(f"round {place}" if place else "setup", style="bold"))
        expected = node.size
        table.add_row(
            f"  {node.name}", _start(node), count(expected.rows) if expected.rows else "",
            count(expected.tokens) if expected.tokens else "", size(expected.memory) if expected.memory else "",
            clock(expected.seconds) if expected.seconds else "", *([_cost(node)] if priced else []),
            node.key[:6], Text(states[node.id]), Text(expected.note, style="dim"),
        )  # fmt: skip
    return table


def _cost(node: Node) -> str:
    """What the served models will charge, and what they may where that is less."""
    if not node.size.cost:
        return ""
    budgets = [item.served.budget for item in flat(node.inputs) if isinstance(item, External) and item.served]
    limit = sum(budget for budget in budgets if budget is not None)
    over = None not in budgets and node.size.cost > limit
    return f"{money(node.size.cost)} of {money(limit)}" if over else money(node.size.cost)


def money(amount: float) -> str:
    """`1,204.50`, `0.35`, `0.0012`: in the currency of the recipe's prices."""
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.2g}"


def plan_total(plan: Plan, todo: Iterable[Node]) -> str:
    """The last line of the plan: what is left to do."""
    left = list(todo)
    if not left:
        return "nothing to do: all stages are finished"
    seconds = sum(node.size.seconds for node in left)
    hours = seconds * plan.recipe.machine.devices / 3600
    devices = f", {hours:,.1f} device hours" if hours >= 0.1 else ""
    speed = f"{plan.recipe.machine.teraflops:g} TFLOP/s"
    cost = sum(node.size.cost for node in left)
    charged = f", {money(cost)} for served models" if cost else ""
    return f"{_plural(len(left), 'stage')} to run, about {clock(seconds)} at {speed}{devices}{charged}"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _start(node: Node) -> str:
    for name in STARTS:
        value = node.inputs.get(name)
        if value is not None:
            items = value if isinstance(value, list) else [value]
            times = f" ×{k}" if (k := getattr(node.config, "k", 0)) else ""
            return ", ".join(_short(item, node) for item in items) + times
    return ""


def _short(item: Any, node: Node) -> str:
    if isinstance(item, External):
        return "/".join(item.source.rstrip("/").split("/")[-2:])
    if item.provides(MODEL):
        return str(item.config.model)
    return str(item.name) if item.round == node.round else f"{item.name} r{item.round}"


class RunScreen:
    """One quiet line for the stage at work and one for each that is done. Without a terminal, only the latter."""

    def __init__(self, out: Console):
        self.out = out
        self.live: Live | None = None
        self.began = time.monotonic()
        self.left: dict[str, float] = {}
        """Expected seconds of the stages to run, by id."""
        self.expected_done, self.measured_done = 0.0, 0.0
        self.stage_began = 0.0
        self.heard = 0.0
        """When the stage last reported."""
        self.worked_seconds, self.worked_done, self.worked_tokens, self.done = 0.0, 0, 0, 0
        """Of the stage at work, without what it kept from an earlier run."""

    def begin(self, plan: Plan, chosen: int, todo: list[Node]) -> None:
        self.left = {node.id: node.size.seconds for node in todo}
        if todo and self.out.is_terminal:
            self.live = Live(
                "", console=self.out, refresh_per_second=8, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self.live.start()
        before = f"; {_plural(chosen - len(todo), 'stage')} finished before" if todo else ""
        self.say(f"{plan.recipe.name}: {plan_total(plan, todo)}{before}")

    def say(self, text: str) -> None:
        self.out.print(Text(text))

    def stage_begins(self, node: Node) -> None:
        self.stage_began = self.heard = time.monotonic()
        self.worked_seconds, self.worked_done, self.worked_tokens, self.done = 0.0, 0, 0, 0
        self._show(f"{_where(node)}  starting")

    def hear(self, node: Node, event: dict[str, Any]) -> None:
        if event["event"] == "running":
            self.heard = time.monotonic()
        if event["event"] != "progress":
            return
        now, done, total = time.monotonic(), event["done"], max(1, event["total"])
        if now - self.heard > KEPT_SECONDS:
            self.worked_seconds += now - self.heard
            self.worked_done += done - self.done
            self.worked_tokens += event["tokens"]
        self.heard, self.done = now, done
        filled = min(BAR_CELLS, BAR_CELLS * done // total)
        parts = [f"{done:,}/{total:,} {event['unit']}", "▇" * filled + "░" * (BAR_CELLS - filled)]
        if self.worked_tokens:
            parts.append(f"{count(self.worked_tokens / self.worked_seconds)} tok/s")
        if "note" in event:
            parts.append(event["note"])
        eta = self.worked_seconds * (total - done) / self.worked_done if self.worked_done > 0 else None
        if eta is not None:
            parts.append(f"eta {clock(eta)}")
        parts.append(f"  elapsed {clock(now - self.began)} of ~{clock(self._whole(node, now, eta))}")
        self._show(f"{_where(node)}  " + "  ".join(parts))

    def _whole(self, node: Node, now: float, eta: float | None) -> float:
        """Seconds this command will have taken: estimates of what is left, scaled by how the finished ones came out."""
        scale = self.measured_done / self.expected_done if self.expected_done else 1.0
        later = sum(seconds for name, seconds in self.left.items() if name != node.id) * scale
        rest = eta if eta is not None else max(0.0, self.left.get(node.id, 0.0) * scale - (now - self.stage_began))
        return now - self.began + rest + later

    def stage_ends(self, node: Node, event: dict[str, Any]) -> None:
        measured = event["measured"]
        self.expected_done += self.left.pop(node.id, 0.0)
        self.measured_done += measured["seconds"]
        rows = ", ".join(f"{number:,} {table}" for table, number in event["rows"].items())
        speed = f"{count(measured['tokens'])} tokens" if measured["tokens"] else ""
        fitted = _fitted(event["summary"].get("preflight", {}))
        parts = [part for part in (rows, speed, fitted, clock(measured["seconds"]), size(measured["memory"])) if part]
        self.say(f"{_where(node)}  " + " · ".join(parts))
        for line in event["summary"].get("told", ()):
            self.say(f"  {line}")
        if warning := event["summary"].get("warning"):
            self.say(f"  {warning}")

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _show(self, text: str) -> None:
        if self.live is not None:
            self.live.update(Text(text, no_wrap=True, overflow="ellipsis"))


def _where(node: Node) -> str:
    return f"{f'round {node.round}' if node.round else 'setup'} ▸ {node.name}"


def _fitted(preflight: dict[str, Any]) -> str:
    """What a training stage did with the rows that were too long; that none was cut is said as well."""
    if not preflight:
        return ""
    dropped = f"{_plural(preflight['dropped'], 'long row')} dropped, " if preflight["dropped"] else ""
    return f"{dropped}{preflight['tokens_cut']:,} tokens cut"


def result(report: dict[str, Any], root: Any) -> Iterable[RenderableType]:
    """The table that matters, and the lines below it."""
    if report["evaluations"]:
        yield evaluation_table(report["evaluations"])
    for line in (*reward_lines(report), *gate_lines(report)):
        yield Text(line)
    yield Text(_last_line(report, root))


def evaluation_table(columns: list[dict[str, Any]]) -> Table:
    """Accuracy in percent by evaluation. ▲ ▼ where a change is shown (`posttrain.rounds.report.direction`)."""
    last = columns[-1]
    table = grid("", ">n", *(f">{column['title']}" for column in columns), ">")
    names = ["overall", *dict.fromkeys(name for column in columns for name in column["capability"])]
    for name in names:
        cells = [_cell(column, name) for column in columns]
        rate = _part(last, name)
        width = f"±{50 * (rate['high'] - rate['low']):.1f}" if rate else ""
        table.add_row(name if name == "overall" else f" {name}", f"{rate['n']:,}" if rate else "", *cells, width)
    if any("change" in column for column in columns):
        table.caption = "▲ ▼ better, worse than the column before, 95% paired; ± half the interval of the last column"
        table.caption_justify = "left"
    return table


def _part(results: dict[str, Any], name: str) -> Any:
    return results.get("overall") if name == "overall" else results.get("capability", {}).get(name)


def _cell(column: dict[str, Any], name: str) -> Text:
    rate, change = _part(column, name), _part(column.get("change", {}), name)
    if rate is None:
        return Text("–")
    mark = MARKS[direction(change) if change else 0]
    return Text(f"{100 * rate['accuracy']:.1f} {mark}", style={"▲": "green", "▼": "red"}.get(mark, ""))


def reward_lines(report: dict[str, Any]) -> Iterable[str]:
    """Pair accuracy on held-out prompts, and what choosing by it gave against taking any of the K answers."""
    for model in report["reward_models"]:
        if held := model.get("heldout"):
            interval = f"{held['low']:.2f}–{held['high']:.2f}, n={held['n']:,}"
            yield f"{model['title']} model: pair accuracy {held['accuracy']:.2f} ({interval})"
    for scores in report["scores"]:
        found = scores.get("best_of_k", {}).get("all", {})
        if "combined" in found:
            best = f"best of K {found['combined']:.2f} against mean {found['mean']:.2f}, any {found['any']:.2f}"
            yield f"{scores['title']}: {best}, n={found['n']:,}"


def gate_lines(report: dict[str, Any]) -> Iterable[str]:
    for gate in report["gates"]:
        change = gate.get("change", {}).get("overall")
        moved = (
            f" ({100 * change['change']:+.1f}, {100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
            if change
            else ""
        )
        verdict = "passed" if gate.get("passed") else f"did not hold for {', '.join(gate.get('failed', []))}"
        yield f"{gate['title']} {verdict}{moved}: keeps the {gate.get('kept', 'candidate')}"


def _last_line(report: dict[str, Any], root: Any) -> str:
    parts = [f"checkpoint {root}/final"] if report["final"] else []
    parts.append(f"report {root}/{PAGE if (Path(root) / PAGE).exists() else REPORT}")
    if report["history"]:
        parts.append(f"{_spoken(report['history'][-1]['wall_seconds'])}, {size(report['peak_memory'])} peak")
    return " · ".join(parts)


def _spoken(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{seconds:.1f} s"


def status_table(report: dict[str, Any]) -> Table:
    """Each stage: finished or not, and what was expected beside what was measured."""
    table = grid("stage", "state", "~rows", ">tokens", ">expected", ">memory", ">expected", ">time", ">expected")
    for stage in report["stages"]:
        measured, expected = stage.get("measured", {}), stage["expected"]
        rows = ", ".join(f"{number:,} {name}" for name, number in stage.get("rows", {}).items())
        table.add_row(
            stage["id"], stage["state"], rows,
            count(measured["tokens"]) if measured.get("tokens") else "",
            count(expected["tokens"]) if expected["tokens"] else "",
            size(measured["memory"]) if measured else "", size(expected["memory"]) if expected["memory"] else "",
            clock(measured["seconds"]) if measured else "", clock(expected["seconds"]) if expected["seconds"] else "",
        )  # fmt: skip
    return table
