"""What a served model has cost so far."""

from dataclasses import dataclass, field
from typing import Any

from posttrain.endpoint import Price
from posttrain.errors import UserError


@dataclass
class Account:
    """Tokens that a server charged for, tries that failed, and the budget they are held against."""

    price: Price
    budget: float | None
    prompt_tokens: int = 0
    tokens: int = 0
    retries: int = field(default=0)

    @property
    def cost(self) -> float:
        return self.price.of(self.prompt_tokens, self.tokens)

    def charge(self, prompt_tokens: int, tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.tokens += tokens

    def check(self, model: str) -> None:
        """Raise UserError when the budget is spent."""
        if self.budget is not None and self.cost >= self.budget:
            raise UserError(
                f"the answers of {model} have cost {self.cost:.4g}, and its budget is {self.budget:g}; raise it in "
                "models and give the same command again: finished answers are kept"
            )

    def as_dict(self) -> dict[str, Any]:
        """For a manifest's summary."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "retries": self.retries,
            "cost": self.cost,
        }
