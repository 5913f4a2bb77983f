"""A verdict with what was read of the answer."""

from dataclasses import dataclass, field

from posttrain.checks.verdict import Verdict


@dataclass(frozen=True)
class Reading(Verdict):
    """`parsed` is the answer as it was read; None says that none could be found, which is counted apart from a wrong
    one. `parts` are further numbers that a suite sums up."""

    parsed: str | None = None
    parts: dict[str, float] = field(default_factory=dict)


def right(parsed: str) -> Reading:
    return Reading(1.0, "right", parsed)


def wrong(reason: str, parsed: str | None = None) -> Reading:
    return Reading(0.0, reason, parsed)
