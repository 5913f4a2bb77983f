"""A preflight's report as text: rows with what is trained in colour, the ledger, and the checks."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from posttrain.chat import CONTEXT, FORMAT, TRAINED
from posttrain.train.overlength import SIDES, Entry
from posttrain.train.preflight import Report, Sample, Segment

STYLES = {CONTEXT: "dim", TRAINED: "green", FORMAT: "bold yellow"}
BRACKETS = {CONTEXT: ("", ""), TRAINED: ("⟦", "⟧"), FORMAT: ("⟪", "⟫")}
"""Around trained and trained format tokens where there is no colour."""
CONTEXT_CHARS = 300
"""Of a longer piece of context, the beginning and the end are shown."""


def print_report(report: Report, out: Console) -> None:
    """Everything: the rows in colour, the table of sources, the checks."""
    for part in (*samples(report.samples, out), ledger(report), *checks(report)):
        out.print(part)


def samples(shown: Iterable[Sample], out: Console) -> Iterable[RenderableType]:
    for sample in shown:
        for number, told in enumerate(sample.conversations):
            side = f"  {SIDES[number]}" if len(sample.conversations) > 1 else ""
            trained = sum(tokens for mask, _, tokens in told if mask != CONTEXT)
            whole = sum(tokens for _, _, tokens in told)
            about = "  ".join(part for part in (sample.id, sample.capability, sample.source) if part)
            yield Text(f"{about}{side}  trained {trained:,} of {whole:,} tokens", style="bold")
            yield conversation(told, colour=out.color_system is not None)
            yield Text("")
    if out.color_system is None:
        yield Text("⟦trained⟧ ⟪trained format token⟫ context\n")
    else:
        yield Text.assemble(
            ("trained  ", STYLES[TRAINED]), ("trained format token  ", STYLES[FORMAT]), ("context\n", "dim")
        )


def conversation(told: Iterable[Segment], colour: bool) -> Text:
    text = Text()
    for mask, piece, _ in told:
        shown = _elided(piece) if mask == CONTEXT else piece
        before, after = ("", "") if colour else BRACKETS[mask]
        text.append(f"{before}{shown}{after}", STYLES[mask])
    return text


def _elided(piece: str) -> str:
    if len(piece) <= CONTEXT_CHARS:
        return piece
    half = CONTEXT_CHARS // 2
    return f"{piece[:half]} … {len(piece) - 2 * half:,} characters … {piece[-half:]}"


def ledger(report: Report) -> Table:
    """A line a source: rows, tokens, trained tokens, longest, over-length and what was done."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("source", ">rows", ">tokens", ">trained", ">longest", f">over {report.limit:,}", "what was done"):
        right = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    for entry in report.ledger:
        numbers = (entry.rows, entry.tokens, entry.trained_tokens, entry.longest, entry.over_length)
        table.add_row(entry.source or "–", *(f"{number:,}" for number in numbers), done(entry))
    return table


def done(entry: Entry) -> str:
    """What became of a source's long rows."""
    if not entry.rows:
        return "no row is of this source"
    if not entry.over_length:
        return ""
    told = []
    if entry.dropped:
        told.append(f"{entry.dropped:,} dropped ({entry.tokens_dropped:,} tokens)")
    if entry.truncated:
        told.append(f"{entry.truncated:,} lost {entry.tokens_cut:,} tokens of their oldest turns")
    if left := entry.over_length - entry.dropped - entry.truncated:
        told.append(f"{left:,} refused")
    return ", ".join(told)


def checks(report: Report) -> Iterable[Text]:
    for check in report.failed:
        yield Text.assemble(("✗ ", "bold red"), str(check))
    passed = len(report.checks) - len(report.failed)
    twice = f"{report.rendered_twice:,} of them rendered a second time by transformers"
    yield Text(f"{passed} of {len(report.checks)} checks hold for {report.rows:,} rows, {twice}")
