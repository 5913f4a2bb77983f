"""How far a synthesis stage is: the asking of all its pipelines as one count, with what was kept and what it cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.operators.work import Work

Event = dict[str, Any]


class Meter:
    """Stands between the stage and who listens to it. `expected` is how many texts each source is to ask."""

    def __init__(self, report: Callable[[Event], None], expected: dict[str, int]):
        self.report, self.expected = report, dict(expected)
        self.asked = dict.fromkeys(expected, 0)
        self.note = ""

    def __call__(self, event: Event) -> None:
        """Pass an event on; of progress, with the count of all sources."""
        if event["event"] != "progress":
            self.report(event)
            return
        before = sum(self.asked.values())
        total = max(self.total, before + event["total"])
        note = {"note": self.note} if self.note else {}
        self.report({**event, "done": before + event["done"], "total": total, "unit": "texts", **note})

    @property
    def total(self) -> int:
        return sum(max(self.asked[name], self.expected[name]) for name in self.expected)

    @contextmanager
    def asking(self, work: "Work", step: str, texts: int) -> Iterator[None]:
        """While a step of a source asks for so many texts."""
        cost = sum(tally.cost for tally in work.tallies.values())
        money = f", cost {cost:.3g}" if cost else ""
        self.note = f"{work.capability} {step}, {len(work.made):,} of {work.config.rows:,} kept{money}"
        yield
        self.asked[work.capability] += texts

    def finished(self, capability: str) -> None:
        """A source asks no more."""
        self.expected[capability] = self.asked[capability]
