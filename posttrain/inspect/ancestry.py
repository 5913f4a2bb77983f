"""A row's ancestry in words: one line for each row it was made from, with what made it and what was said of it."""

import json
from collections.abc import Iterator
from typing import Any

from posttrain.inspect.run import Found, Run

ID_CHARS = 8
EXCERPT_CHARS = 110
GAP = "   "
"""Between the parts of a line."""
MADE_BY_ELSEWHERE = ("stage", "round")
"""What the stage's id says already."""


def parents_shown(run: Run, found: Found) -> list[Found]:
    """The rows it was made from. A prompt is told of below the responses to it."""
    parents = run.parents(found)
    if any(parent.table == "responses" for parent in parents):
        answered = {parent.row.prompt_id for parent in parents if parent.table == "responses"}
        parents = [parent for parent in parents if parent.row.id not in answered]
    return parents


def describe(run: Run, found: Found) -> str:
    """One line: what it is, the stages it stands in, its scores, what made it, and what became of it."""
    row = found.row
    parts = [f"{_singular(found.table)} {row.id[:ID_CHARS]}", ", ".join(run.places(row.id))]
    if found.table == "responses":
        siblings = run.siblings(row)
        told = f"candidate {row.index + 1} of {sum(other.count for other in siblings)}"
        parts[0] = f"{told}{f' (given {row.count} times)' if row.count > 1 else ''} {row.id[:ID_CHARS]}"
        parts += [f"{row.tokens} tokens", row.finish, *_scores(run, row, siblings)]
    for name in ("title", "capability", "language", "source", "rating"):
        parts += [value] if (value := getattr(row, name, "")) else []
    for name in ("reward", "margin"):
        parts += [f"{name} {value:.3g}"] if (value := getattr(row, name, None)) is not None else []
    parts += [f"{name} {value}" for name, value in _made_by(row)]
    unknown = [parent for parent in getattr(row, "parents", ()) if parent not in run.index]
    parts += [f"from {', '.join(unknown)}"] if unknown else []
    parts += [f"left out by {stage}: {reject.reason}" for stage, reject in run.rejects.get(row.id, ())]
    return GAP.join(parts)


def excerpt(row: Any) -> str:
    """The beginning of what a row says, in one line: a question with its answer, of a pair both answers."""
    if hasattr(row, "text"):
        return shortened(told(row), EXCERPT_CHARS)
    if hasattr(row, "chosen"):
        answers = " over ".join(f"“{shortened(_said(side), EXCERPT_CHARS // 3)}”" for side in row.sides)
        return f"{shortened(_said(row.prompt[-1:]), EXCERPT_CHARS // 3)} → {answers}"
    asked = [message for message in row.messages if message["role"] == "user"][-1:]
    if row.messages[-1]["role"] != "assistant":
        return shortened(_said(asked or row.messages[-1:]), EXCERPT_CHARS)
    said = row.messages[-1:]
    return f"{shortened(_said(asked), EXCERPT_CHARS // 2)} → “{shortened(_said(said), EXCERPT_CHARS // 2)}”"


def told(row: Any) -> str:
    """The text of a response with its steps as JSON lines before it, or of a document."""
    steps = (json.dumps(step, ensure_ascii=False) for step in getattr(row, "steps", ()))
    return "\n".join([*steps, row.text])


def shortened(text: str, characters: int) -> str:
    """One line of at most so many characters; of a longer text the beginning and the end."""
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    tail = characters // 3
    return f"{line[: characters - tail - 3]} … {line[-tail:]}"


def _said(messages: Any) -> str:
    """Contents and calls, a blank between them."""
    parts = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        content = message.get("content")
        parts += [content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)] if content else []
        parts += [json.dumps(calls, ensure_ascii=False)] if calls else []
    return " ".join(parts)


def _made_by(row: Any) -> Iterator[tuple[str, Any]]:
    for name, value in getattr(row, "made_by", {}).items():
        if name not in MADE_BY_ELSEWHERE and value not in (None, "", [], {}):
            yield name, value


def _scores(run: Run, response: Any, siblings: list[Any]) -> Iterator[str]:
    """Each scorer's value with its rank among the answers to the same prompt, and the best and worst of them."""
    for scorer, value in run.scores.get(response.id, {}).items():
        all_values = [run.scores[s.id][scorer] for s in siblings if scorer in run.scores.get(s.id, {})]
        rank = 1 + sum(other > value for other in all_values)
        ends = f"; best {max(all_values):.3g}, worst {min(all_values):.3g}" if len(all_values) > 1 else ""
        yield f"{scorer} {value:.3g} (rank {rank} of {len(all_values)}{ends})"


def _singular(table: str) -> str:
    return {"rows": "sft row", "preferences": "preference"}.get(table, table.removesuffix("s"))
