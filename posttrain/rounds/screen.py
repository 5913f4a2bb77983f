"""What a person sees while a run is at work."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from posttrain.rounds.plan import Node, Plan
from posttrain.rounds.view import clock, count, plan_total, plural, size

BAR_CELLS = 10
KEPT_SECONDS = 0.005
"""Reports that come faster than this are of chunks kept from an earlier run, and say nothing of speed."""


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
        before = f"; {plural(chosen - len(todo), 'stage')} finished before" if todo else ""
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
    dropped = f"{plural(preflight['dropped'], 'long row')} dropped, " if preflight["dropped"] else ""
    return f"{dropped}{preflight['tokens_cut']:,} tokens cut"
