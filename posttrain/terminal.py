"""Rows and a chat, as text in a terminal."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError
from posttrain.inspect import query
from posttrain.inspect.run import Run, load
from posttrain.rounds.sources import HUB_NAME

PREFLIGHT = "preflight"
"""Key of a training stage's summary that its preflight report tells in full."""
ID_CHARS = 8
CELL_CHARS = 60
"""Of a longer value in a table, the beginning is shown."""


def show(
    run: Run, stage: str | None, table: str | None, where: list[str], sort: str | None, columns: str | None, limit: int,
    out: Console,
) -> None:  # fmt: skip
    """Print rows of one table: of the stage named, or of every stage that wrote it. `columns` (names with commas
    between them) makes it a table with a line a row. A checkpoint has its summary and its preflight to show."""
    stage = run.stage(stage).id if stage else None
    table = table or query.readable(run, stage)
    if table is None:
        _show_stage(run, stage, out)
        return
    conditions = [query.condition(text) for text in where]
    every = 0
    kept = []
    for of, row in query.rows_of(run, stage, table):
        every += 1
        if all(condition.holds(run, row) for condition in conditions):
            kept.append((of, row))
    if sort:
        kept.sort(key=lambda item: query.order(query.value(run, item[1], sort)), reverse=True)
    if columns is not None:
        _print_columns(run, kept[:limit], columns, out)
    else:
        for of, row in kept[:limit]:
            print_row(run, of, row, out)
    out.print(Text(f"{min(limit, len(kept)):,} of {len(kept):,} {table} that fit, {every:,} in all", style="dim"))


def _show_stage(run: Run, stage: str | None, out: Console) -> None:
    """A stage without tables: what its manifest sums up, and what it was trained on."""
    if stage is None:
        raise UserError(f"{run.root} has no rows to show yet; `posttrain status` tells what is finished")
    from posttrain.train.preflight import read_report
    from posttrain.train.preflight_view import print_report

    found = run.stage(stage)
    out.print(Text(f"{found.id}  {found.manifest.kind}  {found.folder}", style="bold"))
    for name, value in found.manifest.summary.items():
        if name != PREFLIGHT:
            out.print(Text(f"  {name} {query.as_text(value)}"))
    if report := read_report(found.folder):
        out.print("")
        print_report(report, out)


def _print_columns(run: Run, rows: list[tuple[str, Any]], columns: str, out: Console) -> None:
    names = [name.strip() for name in columns.split(",") if name.strip()]
    if not names:
        raise UserError(f"--columns {columns!r} names no column; `show` without it prints whole rows")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True)
    for stage, row in rows:
        table.add_row(*(Text(_cell(stage if name == "stage" else query.value(run, row, name))) for name in names))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(query.as_text(value).split())
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…"


def print_row(run: Run, stage: str, row: Any, out: Console) -> None:
    """Its head, then every message."""
    known = query.columns(run, row)
    head = [str(getattr(row, "id", ""))[:ID_CHARS], stage]
    for name in ("capability", "language"):
        head += [str(value)] if name in known and (value := query.value(run, row, name)) else []
    for name in ("reward", "margin", "rating", "finish", "tokens", "response_id", "scorer", "value", "place", "reason"):
        value = getattr(row, name, None)
        head += [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"] if value is not None else []
    head += [f"{scorer} {value:.3g}" for scorer, value in run.scores.get(getattr(row, "id", ""), {}).items()]
    out.print(Text("  ".join(part for part in head if part), style="bold"))
    if hasattr(row, "text"):
        out.print(Text(f"  {row.text}"))
    elif hasattr(row, "chosen"):
        _print_messages((*row.prompt, *_named(row.sides[0], "chosen"), *_named(row.sides[1], "rejected")), out)
    elif hasattr(row, "messages"):
        _print_messages(row.messages, out)


def _named(side: tuple[Message, ...], name: str) -> tuple[Message, ...]:
    return tuple({**said, "role": name if said["role"] == "assistant" else said["role"]} for said in side)


def _print_messages(messages: Any, out: Console) -> None:
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        said = [str(message.get("content") or ""), *([json.dumps(calls, ensure_ascii=False)] if calls else [])]
        out.print(Text.assemble((f"  {message['role']:>9} ", "dim"), " ".join(filter(None, said))))


def chat(model: str, tools_file: str | None, temperature: float, max_new_tokens: int, out: Console) -> None:
    """Talk to a checkpoint, or to the newest of a run: one line in, one answer out, until the input ends."""
    from posttrain.engines.protocol import Completion, Request, Sampling, open_engine
    from posttrain.machine import Machine

    folder = _checkpoint(model)
    tools = _read_tools(tools_file)
    sampling = Sampling(n=1, temperature=temperature, max_new_tokens=max_new_tokens)
    messages: list[Message] = []
    with closing(open_engine(folder, Machine())) as engine:

        def answer(seed: int) -> Completion:
            return next(engine.generate([Request("chat", tuple(messages), tools, seed=seed)], sampling))[0]

        for number, line in enumerate(_lines(out)):
            messages.append({"role": "user", "content": line})
            completion = answer(number)
            if completion.finish == "too_long" and len(messages) > 1:
                out.print(Text("the conversation no longer fits the model: starting again from here", style="dim"))
                messages = messages[-1:]
                completion = answer(number)
            if completion.finish == "too_long":
                raise UserError(
                    f"a line of {len(line):,} characters and --max-new-tokens {max_new_tokens:,} do not fit the "
                    "model's context; make one of them smaller"
                )
            out.print(Text(completion.text))
            messages.append(engine.renderer.message(completion.text))


def _lines(out: Console) -> Iterator[str]:
    """Non-empty lines typed or piped in."""
    typed = sys.stdin.isatty()
    while True:
        if typed:
            out.print(Text("› ", style="bold"), end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _checkpoint(model: str) -> str:
    """A run's root means its newest checkpoint; anything else is a model folder or hub name."""
    path = Path(model)
    if (path / "plan.json").is_file():
        if not (path / "final").exists():
            load(path)
            raise UserError(f"{path} has no finished checkpoint yet; run it, or name a model folder")
        return str(path / "final")
    if not path.exists() and not HUB_NAME.match(model):
        raise UserError(f"{model} is neither a run, a model folder nor a hub name (owner/name)")
    return model


def _read_tools(path: str | None) -> tuple[Tool, ...]:
    if path is None:
        return ()
    try:
        tools = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--tools {path}: cannot be read as JSON ({error})") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"--tools {path}: expected a JSON list of tools, got {type(tools).__name__}")
    return tuple(tools)
