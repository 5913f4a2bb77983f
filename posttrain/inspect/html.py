"""Rows as HTML for a notebook: conversations with the trained tokens in colour, candidates side by side, ancestry."""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.inspect.ancestry import GAP, describe, excerpt, parents_shown, told
from posttrain.inspect.run import Found, Run, messages_of

if TYPE_CHECKING:
    from posttrain.train.preflight import Report

COLORS = {0: "#888888", 1: "#0a7d33", 2: "#b35900"}
"""Mask value → colour: context, trained, trained format token."""
PRE = "white-space:pre-wrap;text-align:left;margin:0.3em 0"


@dataclass(frozen=True)
class Html:
    """What a notebook shows as it is."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def conversation(run: Run, row: str | Any) -> Html:
    """A row, pair, response or prompt (or the beginning of its id) as the model sees it: green is trained, brown is a
    trained format token, grey is context. Of a pair both answers, of a response the prompt and what was written."""
    row = run.find(row).row if isinstance(row, str) else row
    if hasattr(row, "title"):
        return Html(f"{_head(row)}<pre style='{PRE}'>{html.escape(row.text)}</pre>")
    if hasattr(row, "text"):
        prompt = run.prompts.get(row.prompt_id)
        asked = _pre(segments(prompt, run)) if prompt else ""
        return Html(f"{_head(row)}{asked}<pre style='{PRE}'>{html.escape(row.text)}</pre>")
    if not hasattr(row, "rejected"):
        return Html(_head(row) + _pre(segments(row, run)))
    sides = "".join(
        f"<b>{name}</b>{_pre(segments(_with_answer(row, answer), run))}"
        for name, answer in zip(("chosen", "rejected"), row.sides, strict=True)
    )
    return Html(_head(row) + sides)


def _with_answer(pair: Any, answer: Any) -> Any:
    from posttrain.data.rows import Row

    return Row((*pair.prompt, *answer), pair.capability, pair.language, pair.source, pair.tools)


def _head(row: Any) -> str:
    words = [getattr(row, name, "") for name in ("capability", "language", "source")]
    return f"<div><code>{html.escape(row.id)}</code> {html.escape(' · '.join(word for word in words if word))}</div>"


def segments(row: Any, run: Run) -> list[tuple[int, str]]:
    """The rendered conversation cut where the loss mask changes: (mask value, text with control tokens)."""
    renderer, messages = run.renderer, messages_of(row)
    if messages[-1]["role"] == "assistant":
        rendered = renderer.conversation(list(messages), row.tools)
        ids, mask = rendered.ids, rendered.mask
    else:
        ids = renderer.prompt(list(messages), row.tools)
        mask = [0] * len(ids)
    cuts = [0, *(i for i in range(1, len(mask)) if mask[i] != mask[i - 1]), len(mask)]
    return [(mask[a], renderer.tokenizer.decode(ids[a:b])) for a, b in pairwise(cuts) if b > a]


def _pre(pieces: Iterable[tuple[int, str]]) -> str:
    spans = (f'<span style="color:{COLORS[mask]}">{html.escape(text)}</span>' for mask, text in pieces)
    return f'<pre style="{PRE}">{"".join(spans)}</pre>'


def candidates(run: Run, row_id: str, stage: str | None = None, sort: str = "combined") -> Html:
    """All candidates to a prompt side by side with their scores, best first.

    `row_id` is the beginning of the id of the prompt, of one of its responses, or of a row chosen from them; `stage`
    says which sampling where a prompt was answered in several rounds. Raises UserError where there is no candidate.
    """
    prompt_id = _prompt_id(run, run.find(row_id))
    groups = {of: group for (of, prompt), group in run.of_prompt.items() if prompt == prompt_id}
    if stage is not None:
        groups = {of: group for of, group in groups.items() if of == run.stage(stage).id}
    if not groups:
        raise UserError(f"{run.root} has no candidate to prompt {prompt_id}{f' of {stage}' if stage else ''}")
    prompt = run.prompts.get(prompt_id)
    parts = [conversation(run, prompt).text] if prompt else []
    return Html("".join([*parts, *(_grid(run, of, group, sort) for of, group in groups.items())]))


def _prompt_id(run: Run, found: Found) -> str:
    if found.table == "prompts":
        return str(found.row.id)
    if of := getattr(found.row, "prompt_id", ""):
        return str(of)
    above = [parent for parent in run.parents(found) if parent.table in ("responses", "prompts")]
    if not above:
        raise UserError(f"row {found.row.id} was not chosen from candidates: it has no prompt among its parents")
    return _prompt_id(run, above[0])


def _grid(run: Run, stage: str, group: list[Any], sort: str) -> str:
    scorers = [name for name in run.scorers if any(name in run.scores.get(r.id, {}) for r in group)]
    ordered = sorted(group, key=lambda r: -run.scores.get(r.id, {}).get(sort, float("-inf")))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", "answer", "tokens", *scorers))
    lines = "".join(
        f"<tr><td><code>{response.index + 1}{f' ×{response.count}' if response.count > 1 else ''}</code></td>"
        f"<td><pre style='{PRE}'>{html.escape(told(response))}</pre></td><td>{response.tokens}</td>"
        + "".join(f"<td>{_number(run.scores.get(response.id, {}).get(name))}</td>" for name in scorers)
        + "</tr>"
        for response in ordered
    )
    return f"<div>{html.escape(stage)}</div><table><tr>{head}</tr>{lines}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def lineage(run: Run, row_id: str) -> Html:
    """Where a row came from, as a tree: the stages it stands in, the candidate it was, the prompt, what made each."""
    return Html(f"<ul>{_branch(run, run.find(row_id), set())}</ul>")


def _branch(run: Run, found: Found, seen: set[str]) -> str:
    text = f"<li>{html.escape(describe(run, found).replace(GAP, ' · '))}"
    if found.row.id in seen:
        return f"{text}</li>"
    seen.add(found.row.id)
    text += f"<br><span style='color:{COLORS[0]}'>{html.escape(excerpt(found.row))}</span>"
    below = "".join(_branch(run, parent, seen) for parent in parents_shown(run, found))
    return f"{text}<ul>{below}</ul></li>" if below else f"{text}</li>"


def preflight(run: Run, stage: str = "sft") -> Html:
    """The report that a training stage wrote before it trained: rows in colour, the ledger, the checks."""
    from posttrain.train.preflight import read_report

    found = run.stage(stage)
    report = read_report(found.folder)
    if report is None:
        raise UserError(f"{found.id} has no preflight report; only training stages write one")
    shown = [
        f"<div><code>{html.escape(sample.id)}</code> {html.escape(sample.capability)}</div>"
        + "".join(_pre((mask, text) for mask, text, _ in told) for told in sample.conversations)
        for sample in report.samples
    ]
    checks = "".join(f"<li>{'✗ ' + html.escape(str(c)) if c.failed else '✓ ' + c.says}</li>" for c in report.checks)
    return Html(f"{''.join(shown)}{_ledger(report)}<ul>{checks}</ul>")


def _ledger(report: "Report") -> str:
    from posttrain.train.preflight_view import done

    names = ("source", "rows", "tokens", "trained_tokens", "longest", "over_length")
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in (*names, "what was done"))
    lines = ""
    for entry in report.ledger:
        cells = (*(str(getattr(entry, name)) for name in names), done(entry))
        lines += f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
    return f"<table><tr>{head}</tr>{lines}</table>"
