"""The rows that travel between stages, and their content-hash ids.

A prompt with its K responses is the central thing. On disk it is three flat tables: prompts, responses, scores
(`posttrain.data.tables`); `Candidates` is the view of them in memory.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
"""`role` (system, user, assistant, tool), `content`, and on assistant messages `tool_calls`:
`[{"type": "function", "function": {"name": str, "arguments": dict}}]`, and `train`: bool where its maker said whether
to train it."""

Tool = dict[str, Any]
"""`{"type": "function", "function": {"name", "description", "parameters": JSON schema}}`, or the type of a built-in one
alone: `{"type": "brave_search"}`."""

Rating = Literal["significantly_better", "better", "slightly_better", "marginally_better", "edited"]
RATINGS = ("significantly_better", "better", "slightly_better", "marginally_better")
"""How much better an annotator found the chosen answer, strongest first (Llama 3, 4.2.1)."""
EDITED = "edited"
"""The rating of a pair whose chosen answer is the annotator's edit of the other one, or of a better one: it outranks
every level (edited > chosen > rejected; Llama 3, 4.1.2)."""

LANGUAGES = ("en", "de", "fr", "it", "pt", "hi", "es", "th")


ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, non-ASCII kept."""
    return ENCODER.encode(value)


def content_id(*parts: Any) -> str:
    """Sixteen hex digits of the sha256 of the parts' canonical JSON."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Check:
    """Which verifier of `posttrain.checks.verifiers` can grade an answer, and what it needs to know."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """A text or seed that prompts were made from; `title` is what a person knows it by, such as a file's name."""

    text: str
    title: str = ""
    capability: str = ""
    language: str = "en"
    source: str = ""
    parents: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.text, self.title))


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends where the assistant is to speak.

    `parents` are ids of the rows it was made from; `made_by` says with what (model, stage, round, operator, settings).
    """

    messages: tuple[Message, ...]
    capability: str
    language: str = "en"
    source: str = ""
    tools: tuple[Tool, ...] = ()
    check: Check | None = None
    parents: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.messages, self.tools))


@dataclass(frozen=True)
class Response:
    """One answer to a prompt. `text` is what the model wrote, without the end-of-turn token.

    `finish` is `stop` or `length`; `tokens` counts generated tokens; `logprob` is their summed log-probability in nats
    at temperature 1, or None where the engine cannot say. Where tools were run, `steps` are the messages before the
    last one, calls and results in turn; tokens and log-probability are of all that the model wrote. `count` says how
    many of the model's samples gave this answer, of which `index` is the first.
    """

    prompt_id: str
    index: int
    text: str
    finish: str
    tokens: int
    logprob: float | None
    made_by: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Message, ...] = ()
    count: int = 1
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            parts = (self.prompt_id, self.index, self.text, self.made_by, *self.steps)
            object.__setattr__(self, "id", content_id(*parts))


@dataclass(frozen=True)
class Score:
    """What one scorer says of one response; a response it cannot grade has no row."""

    response_id: str
    scorer: str
    value: float


@dataclass(frozen=True)
class Sample:
    """One answer of an evaluation as it was graded; its texts stand in `prompts` and `responses`.

    `value` is 0 to 1, or None where it cannot be graded. `parsed` is the answer as it was read, None where none could
    be found, which is another thing than a wrong one; `parts` are further numbers that its suite sums up.
    """

    prompt_id: str
    response_id: str
    capability: str
    value: float | None
    reason: str
    parsed: str | None = None
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A conversation to train on; the last message is the assistant's answer.

    `labels` is what curation found out: name → a number (`quality`, `difficulty`), a text (`topic`) or a list of texts
    (`tags`).
    """

    messages: tuple[Message, ...]
    capability: str
    language: str = "en"
    source: str = ""
    tools: tuple[Tool, ...] = ()
    reward: float | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.messages, self.tools))


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first.

    An answer that took several messages, calls and their results, has those before its last one as its steps. `margin`
    is the difference of the scores that ranked them; `rating` one of RATINGS or EDITED, or None where nobody rated.
    Three or more ranked answers are all their pairs, with one `prompt_id`.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    capability: str
    language: str = "en"
    source: str = ""
    tools: tuple[Tool, ...] = ()
    margin: float | None = None
    rating: str | None = None
    prompt_id: str = ""
    parents: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    chosen_steps: tuple[Message, ...] = ()
    rejected_steps: tuple[Message, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            steps = (self.chosen_steps, self.rejected_steps) if self.chosen_steps or self.rejected_steps else ()
            object.__setattr__(self, "id", content_id(self.prompt, self.tools, self.chosen, self.rejected, *steps))

    @property
    def sides(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """All that follows the prompt, chosen then rejected; the assistant's steps are flagged as trained."""
        return (*flagged(self.chosen_steps), self.chosen), (*flagged(self.rejected_steps), self.rejected)


def flagged(steps: Iterable[Message]) -> Iterator[Message]:
    """The messages before an answer's last one, the assistant's of them flagged to be trained."""
    yield from ({**step, "train": True} if step["role"] == "assistant" else step for step in steps)


@dataclass(frozen=True)
class Reject:
    """What a stage left out, and why.

    Of a person's file: `place` is `file:line` and `text` the record's beginning. Of a table: `place` is the row's id,
    `text` what the reason rests on (the matched text, the beginning of the answer), `detail` its numbers and ids, and
    `row` the whole row as `posttrain.data.tables.to_record` writes it to table `table`.
    """

    place: str
    reason: str
    text: str
    detail: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidates:
    """A prompt, its different responses, and for each scorer one value a response (None where it could not grade).

    K, the number of samples, is the sum of the responses' counts.
    """

    prompt: Prompt
    responses: tuple[Response, ...]
    scores: dict[str, tuple[float | None, ...]] = field(default_factory=dict)


def gather(prompts: Iterable[Prompt], responses: Iterable[Response], scores: Iterable[Score] = ()) -> list[Candidates]:
    """Join the three tables by id: prompts in sorted id order, responses by index. Prompts without any are left out."""
    of_prompt: dict[str, list[Response]] = {}
    for response in responses:
        of_prompt.setdefault(response.prompt_id, []).append(response)
    values: dict[str, dict[str, float]] = {}
    for score in scores:
        values.setdefault(score.scorer, {})[score.response_id] = score.value
    joined = []
    for prompt in sorted(prompts, key=lambda p: p.id):
        answers = tuple(sorted(of_prompt.get(prompt.id, ()), key=lambda r: (r.index, r.id)))
        if answers:
            by_scorer = {name: tuple(v.get(r.id) for r in answers) for name, v in values.items()}
            joined.append(Candidates(prompt, answers, by_scorer))
    return joined
