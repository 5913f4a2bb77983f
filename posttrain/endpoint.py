"""A model behind an HTTP endpoint, as a recipe's `models:` describes it. No torch, no network."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from posttrain.config import Config, operational


class Price(Config):
    """What a served model costs, in one currency of your choice per million tokens."""

    input: float = Field(0.0, ge=0)
    """A million prompt tokens."""
    output: float = Field(0.0, ge=0)
    """A million generated tokens."""

    def of(self, prompt_tokens: float, tokens: float) -> float:
        """The cost of so many tokens."""
        return (self.input * prompt_tokens + self.output * tokens) / 1e6


class Abilities(Config):
    """What a server can do; what is left out is asked of it with one tiny request."""

    n: bool | None = None
    """Several answers to one request; where not, K requests are sent."""
    logprobs: bool | None = None
    """Log-probabilities of the generated tokens."""
    token_ids: bool | None = None
    """Token ids as a prompt, at `/completions`; only used with a `tokenizer`."""


class Endpoint(Config):
    """How an OpenAI-compatible server is reached and what it serves."""

    endpoint: tuple[str, ...] = operational((), validate_default=False)
    """Base URLs up to and with `/v1`, of one server or of several that serve the same model; work goes to the least
    busy."""
    model: str = ""
    """The name that the server knows the model by."""
    api_key_env: str | None = operational(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; None sends no key."""
    price: Price = operational(Price())
    """For the account of what it cost, for the plan's estimate of that, and for `budget`."""
    budget: float | None = operational(None, gt=0)
    """What one stage may spend on it, in the currency of `price`; answers under way when it is reached are still taken.
    None has no limit."""
    concurrency: int = operational(32, ge=1, le=4096)
    """Requests under way at once, all endpoints together."""
    timeout: float = operational(600.0, gt=0)
    """Seconds until an unanswered request is given up and tried again."""
    retries: int = operational(6, ge=0)
    """Tries after the first for a request that failed by 429, 5xx, a timeout or a cut connection."""
    can: Abilities = operational(Abilities())
    """What the server can do; left out, it is probed."""
    tokenizer: str | None = None
    """Folder or hub name of the model's tokenizer. With it prompts are rendered here and sent as token ids where the
    server takes them, and checked against `context`; None sends chat messages only."""
    context: int = Field(0, ge=0)
    """Tokens that prompt and answer may have together; 0 leaves it to the server to refuse longer ones."""
    extra: dict[str, object] = {}
    """Added to the body of every request, such as `{top_k: -1}`; a null takes a field out."""

    @field_validator("endpoint", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("endpoint")
    @classmethod
    def _plain_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("write each endpoint as http://host:port/v1")
            if parts.username or parts.password or parts.query or parts.fragment:
                raise ValueError("an endpoint holds no key, user or query; put the key into an environment variable")
        return tuple(url.rstrip("/") for url in urls)
