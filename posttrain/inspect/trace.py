"""Where a row came from, as a tree in a terminal: every ancestor in a line, on request whole texts and rivals."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posttrain.inspect.ancestry import describe, excerpt, parents_shown, shortened, told
from posttrain.inspect.html import segments
from posttrain.inspect.run import Found, Run, messages_of

STYLES = {0: "dim", 1: "green", 2: "bold yellow"}
"""Mask value → style: context, trained, trained format token."""
ANSWER_CHARS = 90


def trace(run: Run, row_id: str, whole: bool, out: Console) -> None:
    """Print the row and all it was made from: candidates with their scores, prompts, documents, and what made each.

    With `whole`, then the conversation in colour, the candidates side by side, and the documents in full.
    """
    found = run.find(row_id)
    seen: dict[str, Found] = {}
    _print_ancestry(run, found, "", "", out, seen)
    if not whole:
        return
    _print_conversation(run, found, out)
    _print_candidates(run, list(seen.values()), out)
    for document in (one for one in seen.values() if one.table == "documents" and one is not found):
        out.print(Text(f"\n{document.row.title or document.row.id}", style="bold"), Text(document.row.text), sep="\n")


def _print_ancestry(run: Run, found: Found, lead: str, below: str, out: Console, seen: dict[str, Found]) -> None:
    out.print(Text(f"{lead}{describe(run, found)}"))
    if found.row.id in seen:
        return
    seen[found.row.id] = found
    parents = parents_shown(run, found)
    out.print(Text.assemble(f"{below}{' │' if parents else '  '}   ", (excerpt(found.row), "dim")))
    for number, parent in enumerate(parents):
        last = number == len(parents) - 1
        _print_ancestry(
            run, parent, f"{below} └ " if last else f"{below} ├ ", f"{below}   " if last else f"{below} │ ", out, seen
        )


def _print_conversation(run: Run, found: Found, out: Console) -> None:
    row = found.row
    if found.table in ("responses", "documents"):
        out.print(Text(f"\n{told(row)}\n"))
        row = run.prompts.get(getattr(row, "prompt_id", ""))
        if row is None:
            return
    text = Text()
    for mask, piece in segments(row, run):
        text.append(piece, STYLES[mask])
    out.print("", text, sep="\n")
    if messages_of(row)[-1]["role"] == "assistant":
        out.print(Text("green is trained, yellow is a trained format token, grey is context", style="dim italic"))


def _print_candidates(run: Run, ancestors: list[Found], out: Console) -> None:
    """Those to each prompt that an ancestor answers, best first by what ranked them; an arrow marks the ancestors."""
    taken = {one.row.id for one in ancestors if one.table == "responses"}
    groups = {(one.stage.id, one.row.prompt_id): run.siblings(one.row) for one in ancestors if one.row.id in taken}
    for (stage, _), group in groups.items():
        scorers = [name for name in run.scorers if any(name in run.scores.get(one.id, {}) for one in group)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
        table.title = f"candidates of {stage}"
        for name in ("", "#", *scorers, "answer"):
            table.add_column(name, no_wrap=True)
        for one in sorted(group, key=lambda one: _rank(run, one, scorers)):
            scores = run.scores.get(one.id, {})
            values = (f"{scores[name]:.3g}" if name in scores else "–" for name in scorers)
            mark = "→" if one.id in taken else ""
            table.add_row(mark, str(one.index + 1), *values, Text(shortened(told(one), ANSWER_CHARS)))
        out.print("", table, sep="\n")


def _rank(run: Run, response: Any, scorers: list[str]) -> tuple[float, int]:
    values = run.scores.get(response.id, {})
    by = "combined" if "combined" in scorers else scorers[0] if scorers else ""
    return -values.get(by, float("-inf")), response.index
