"""Rows, their ancestry and a chat, as text in a terminal."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError
from posttrain.inspect import FINDABLE, Found, Run, load, messages_of, segments

STYLES = {0: "dim", 1: "green", 2: "bold yellow"}
"""Mask value → style: context, trained, trained format token."""
ID_CHARS = 8
CONDITION = re.compile(r"^\s*(\w+)\s*(!=|=|>=|<=|>|<|~)\s*(.*?)\s*$")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, ">": lambda a, b: a > b, "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, "~": lambda a, b: str(b) in str(a),
}  # fmt: skip


def show(
    run: Run, stage: str | None, table: str | None, where: list[str], sort: str | None, limit: int, out: Console
) -> None:
    """Print rows of one table: of the stage named, or of every stage that wrote it."""
    table = table or _readable(run, stage)
    conditions = [_condition(text) for text in where]
    named = [(one.id, row) for one in run.having(table, stage) for row in run.rows(table, one.id)]
    kept = [(of, row) for of, row in named if all(_holds(run, row, *condition) for condition in conditions)]
    if sort:
        kept.sort(key=lambda item: _order(_value(run, item[1], sort)), reverse=True)
    for of, row in kept[:limit]:
        print_row(run, of, row, out)
    out.print(Text(f"{min(limit, len(kept)):,} of {len(kept):,} {table} that fit, {len(named):,} in all", style="dim"))


def _readable(run: Run, stage: str | None) -> str:
    """The first of FINDABLE that the stages have. Raises UserError when they have no table at all."""
    tables = {table for one in run.stages if stage in (None, one.id, one.name) for table in one.tables}
    for table in FINDABLE:
        if table in tables:
            return table
    of = f" of {stage}" if stage else ""
    raise UserError(f"{run.root} has no rows to show yet{of}; `posttrain status` tells what is finished")


def _condition(text: str) -> tuple[str, str, str]:
    match = CONDITION.match(text)
    if not match:
        raise UserError(f"--where {text!r}: expected name=value, or one of != > < >= <= ~ (contains) between them")
    return match.group(1), match.group(2), match.group(3)


def _holds(run: Run, row: Any, name: str, sign: str, wanted: str) -> bool:
    got = _value(run, row, name)
    if got is None:
        return False
    if isinstance(got, (int, float)):
        try:
            return COMPARE[sign](got, float(wanted))
        except ValueError as error:
            raise UserError(f"--where {name}{sign}{wanted}: {name} is a number, {wanted!r} is none") from error
    return COMPARE[sign](got if isinstance(got, str) else json.dumps(got, ensure_ascii=False), wanted)


def _value(run: Run, row: Any, name: str) -> Any:
    """A column of the row, or what a scorer of that name said of it. Raises UserError when the table has neither."""
    if hasattr(row, name) and (name != "reward" or row.reward is not None):
        return getattr(row, name)
    if name in run.scorers or hasattr(row, name):
        return run.scores.get(getattr(row, "id", getattr(row, "response_id", "")), {}).get(name)
    columns = [*type(row).__dataclass_fields__, *run.scorers]
    raise UserError(f"{name!r} is no column of this table; there are {', '.join(columns)}")


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    return (0, 0.0, "" if value is None else str(value))


def print_row(run: Run, stage: str, row: Any, out: Console) -> None:
    """Its head, then every message."""
    head = [getattr(row, "id", "")[:ID_CHARS], stage, getattr(row, "capability", ""), getattr(row, "language", "")]
    for name in ("reward", "margin", "finish", "tokens", "scorer", "value"):
        value = getattr(row, name, None)
        head += [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"] if value is not None else []
    head += [f"{scorer} {value:.3g}" for scorer, value in run.scores.get(getattr(row, "id", ""), {}).items()]
    out.print(Text("  ".join(part for part in head if part), style="bold"))
    if hasattr(row, "text"):
        out.print(Text(f"  {row.text}"))
    elif hasattr(row, "chosen"):
        _print_messages((*row.prompt, {**row.chosen, "role": "chosen"}, {**row.rejected, "role": "rejected"}), out)
    elif hasattr(row, "messages"):
        _print_messages(row.messages, out)


def _print_messages(messages: Any, out: Console) -> None:
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        text = json.dumps(calls, ensure_ascii=False) if calls else str(message.get("content") or "")
        out.print(Text.assemble((f"  {message['role']:>9} ", "dim"), text))


def trace(run: Run, row_id: str, show_text: bool, out: Console) -> None:
    """Print where a row came from: the candidates it was chosen from, the prompt, what made that, and all scores."""
    found = run.find(row_id)
    _print_ancestry(run, found, "", "", out, set())
    if show_text:
        _print_conversation(run, found, out)


def _print_ancestry(run: Run, found: Found, lead: str, below: str, out: Console, seen: set[str]) -> None:
    out.print(Text(f"{lead}{_describe(run, found)}"))
    if found.row.id in seen:
        return
    seen.add(found.row.id)
    parents = run.parents(found)
    if any(parent.table == "responses" for parent in parents):
        # A prompt is told of below the responses to it.
        answered = {parent.row.prompt_id for parent in parents if parent.table == "responses"}
        parents = [parent for parent in parents if parent.row.id not in answered]
    for number, parent in enumerate(parents):
        last = number == len(parents) - 1
        _print_ancestry(
            run, parent, f"{below} └ " if last else f"{below} ├ ", f"{below}   " if last else f"{below} │ ", out, seen
        )


def _describe(run: Run, found: Found) -> str:
    row, made = found.row, dict(getattr(found.row, "made_by", {}))
    parts = [f"{_singular(found.table)} {row.id[:ID_CHARS]}", found.stage.id]
    if found.table == "responses":
        siblings = run.siblings(row)
        parts[0] = f"candidate {row.index + 1} of {len(siblings)} {row.id[:ID_CHARS]}"
        parts += [f"{row.tokens} tokens", row.finish, *_scores(run, row, siblings)]
    for name in ("capability", "language", "source"):
        parts += [value] if (value := getattr(row, name, "")) else []
    for name in ("reward", "margin"):
        parts += [f"{name} {value:.3g}"] if (value := getattr(row, name, None)) is not None else []
    parts += [
        f"{name} {value}"
        for name, value in made.items()
        if name not in ("stage", "round") and value not in (None, "", [], {})
    ]
    unknown = [parent for parent in getattr(row, "parents", ()) if parent not in run.index]
    parts += [f"from {', '.join(unknown)}"] if unknown else []
    return "   ".join(parts)


def _scores(run: Run, response: Any, siblings: list[Any]) -> Iterator[str]:
    """Each scorer's value with its rank among the answers to the same prompt."""
    for scorer, value in run.scores.get(response.id, {}).items():
        others = [run.scores[s.id][scorer] for s in siblings if scorer in run.scores.get(s.id, {})]
        yield f"{scorer} {value:.3g} (rank {1 + sum(other > value for other in others)} of {len(others)})"


def _singular(table: str) -> str:
    return {"rows": "sft row", "preferences": "preference"}.get(table, table.removesuffix("s"))


def _print_conversation(run: Run, found: Found, out: Console) -> None:
    from posttrain.chat import Renderer

    row = found.row
    if found.table == "responses":
        prompt = run.index[row.prompt_id].row
        out.print(Text(f"\n{row.text}\n"))
        row = prompt
    text = Text()
    for mask, piece in segments(row, Renderer.from_pretrained(_tokenizer(run))):
        text.append(piece, STYLES[mask])
    out.print("", text, sep="\n")
    if messages_of(row)[-1]["role"] == "assistant":
        out.print(Text("green is trained, yellow is a trained format token, grey is context", style="dim italic"))


def _tokenizer(run: Run) -> Path:
    """A folder of the run that holds a tokenizer. Raises UserError when no checkpoint is finished."""
    for stage in reversed(run.stages):
        if (stage.folder / "tokenizer_config.json").is_file():
            return stage.folder
    for stage in reversed(run.stages):
        for parent in _sources(stage.manifest.parents):
            if (Path(parent) / "tokenizer_config.json").is_file():
                return Path(parent)
    raise UserError(f"{run.root} has no checkpoint yet, and so no tokenizer to render with; run a training stage first")


def _sources(parents: Any) -> Iterator[str]:
    for value in parents.values():
        for item in value if isinstance(value, list) else [value]:
            if "source" in item:
                yield item["source"]


def chat(model: str, tools_file: str | None, temperature: float, max_new_tokens: int, out: Console) -> None:
    """Talk to a checkpoint, or to the newest of a run: one line in, one answer out, until the input ends."""
    from posttrain.engines.protocol import Request, Sampling, open_engine
    from posttrain.machine import Machine

    folder = _checkpoint(model)
    tools = _read_tools(tools_file)
    engine = open_engine(folder, Machine())
    sampling = Sampling(n=1, temperature=temperature, max_new_tokens=max_new_tokens)
    messages: list[Message] = []
    for number, line in enumerate(_lines(out)):
        messages.append({"role": "user", "content": line})
        completion = next(engine.generate([Request("chat", tuple(messages), tools, seed=number)], sampling))[0]
        if completion.finish == "too_long":
            out.print(
                Text(
                    f"the conversation and {max_new_tokens} new tokens no longer fit the model; starting again",
                    style="dim",
                )
            )
            messages = []
            continue
        out.print(Text(completion.text))
        messages.append(engine.renderer.message(completion.text))
    engine.close()


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
