"""What a person sees of a plan and of a run's result. Every number here was computed elsewhere."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from posttrain.rounds.plan import Node, Plan, flat
from posttrain.rounds.report import PAGE, REPORT, direction, other_share
from posttrain.stages import External
from posttrain.train.prepare_spec import KIND as MODEL

STARTS = ("init", "model", "teacher", "of", "candidate")
"""Names of inputs that are the model a stage starts from or runs, the first one found is shown."""
MARKS = {1: "▲", -1: "▼", 0: " "}
SPARE_WIDTH = 400
"""Columns of output that is no terminal: a line of a table is never folded."""
COUNTS = ("k", "M", "G", "T", "P", "E")
BYTES = (" GiB", " TiB", " PiB", " EiB")
VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}  # fmt: skip
"""Control characters → their pictures: what a row says is shown, and never moves a cursor or renames a window."""


def console(stream: Any = None) -> Console:
    stream = stream or sys.stdout
    width = None if stream.isatty() else SPARE_WIDTH
    return _Screen(file=stream, highlight=False, width=width, soft_wrap=True)


class _Screen(Console):
    """A console on which only our own styles are control sequences."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(VISIBLE), segment.style)

    def on_broken_pipe(self) -> None:
        """The reader is gone; rich would end the process with the exit code of a failed stage."""
        raise BrokenPipeError


class _Grid(Table):
    """A table that never cuts what does not fold: half a number is another number."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*cells, **options)
        for column, cell in zip(self.columns, cells, strict=False):
            if column.no_wrap:
                wanted = max(cell_len(str(text)) for text in (column.header, cell or ""))
                column.min_width = max(column.min_width or 0, wanted)


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
    table = _Grid(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left", header_style="dim"
    )
    for column in columns:
        right, folds = column.startswith(">"), column.startswith("~")
        name = column.lstrip(">~")
        table.add_column(name, justify="right" if right else "left", no_wrap=not folds, overflow="fold")
    return table


def plan_table(plan: Plan, root: Any, states: dict[str, str]) -> Table:
    """All stages, those of a round together."""
    counts = f"{plural(plan.recipe.rounds, 'round')} · {plural(len(plan.nodes), 'stage')}"
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
    return f"{plural(len(left), 'stage')} to run, about {clock(seconds)} at {speed}{devices}{charged}"


def plural(number: int, what: str) -> str:
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
    if rate is None or not rate["n"]:
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
        last = report["history"][-1]
        around = f"{100 * other_share(last):.0f}% around the stages"
        peak = f", {size(report['peak_memory'])} peak" if report["peak_memory"] else ""
        parts.append(f"{_spoken(last['wall_seconds'])} ({around}){peak}")
    return " · ".join(parts)


def _spoken(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{seconds:.1f} s"


def status_table(report: dict[str, Any]) -> Table:
    """Each stage: finished or not, and what was expected beside what was measured. Of a finished stage without a model
    no tokens are counted, so none are shown as expected."""
    pairs = (">tokens", ">expected", ">memory", ">expected", ">time", ">expected")
    table = grid("stage", "state", "~rows", ">expected", *pairs)
    for stage in report["stages"]:
        measured, expected = stage.get("measured", {}), stage["expected"]
        rows = ", ".join(f"{number:,} {name}" for name, number in stage.get("rows", {}).items())
        table.add_row(
            stage["id"], stage["state"], rows, count(expected["rows"]) if expected["rows"] else "",
            count(measured["tokens"]) if measured.get("tokens") else "",
            count(expected["tokens"]) if expected["tokens"] and measured.get("tokens", 1) else "",
            size(measured.get("device_memory", measured["memory"])) if measured else "",
            size(expected["memory"]) if expected["memory"] else "",
            clock(measured["seconds"]) if measured else "", clock(expected["seconds"]) if expected["seconds"] else "",
        )  # fmt: skip
    return table
