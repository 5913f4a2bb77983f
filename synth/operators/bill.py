"""What asking a model took: texts, tokens, money and seconds, booked on the tallies of steps and languages."""

import time
from dataclasses import dataclass, field

from posttrain.engines.protocol import Engine


@dataclass
class Tally:
    """What one step did for one language."""

    asked: int = 0
    """Texts asked of a model."""
    came: int = 0
    """Items that reached the step."""
    left: int = 0
    """Items that went on from it."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why the others did not."""
    tokens: int = 0
    """Written by the model."""
    read: float = 0.0
    """Tokens it read; only a server tells."""
    cost: float = 0.0
    seconds: float = 0.0

    def lose(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Bill:
    """One call of a model. What only the whole call knows (seconds, tokens read, money) is shared out to the tallies by
    the tokens written for each."""

    def __init__(self, engine: Engine):
        self.account = engine.account
        self.written: list[tuple[Tally, int]] = []
        self.read, self.cost = self._so_far()
        self.began = time.monotonic()

    def _so_far(self) -> tuple[int, float]:
        return (self.account.prompt_tokens, self.account.cost) if self.account else (0, 0.0)

    def wrote(self, tally: Tally, texts: int, tokens: int) -> None:
        """Book texts that a model wrote, and their tokens."""
        tally.asked += texts
        tally.tokens += tokens
        self.written.append((tally, tokens))

    def settle(self) -> None:
        """Share out what it took."""
        seconds, (read, cost) = time.monotonic() - self.began, self._so_far()
        total = sum(tokens for _, tokens in self.written)
        for tally, tokens in self.written:
            share = tokens / total if total else 1 / len(self.written)
            tally.seconds += share * seconds
            tally.read += share * (read - self.read)
            tally.cost += share * (cost - self.cost)
