"""What a pipeline works with: its items on their way from seed to row, and the account of what became of each."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from posttrain.data.read import read_rows
from posttrain.data.records import SHOWN_CHARACTERS
from posttrain.data.rows import Check, Document, Message, Pair, Prompt, Reject, Row, Tool, content_id
from posttrain.data.tables import iter_table, to_record
from posttrain.engines.protocol import Engine
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.meter import Meter
from synth.operators.bill import Tally
from synth.operators.items import Item, Made, asked_in, fault
from synth.prompts import Wording, operator_file, read_wording
from synth.sources import EARLIER, FAILURES, Budget, PipelineSpec, SourceConfig, failures, input_name, pipeline_spec

TEACHER = "teacher"
PASSES = 2
"""Asking for more than wanted, then once for what still lacks. With a budget, waves in a row that may bring nothing."""
FIRST_WAVE = 32
"""With a budget: how many are made before it is known what one costs."""
LEAST_WAVE = 0.05
"""With a budget: a wave of a smaller share of what was made is not worth asking."""
OUT_OF_BUDGET = "budget reached"


@dataclass(frozen=True)
class Staff:
    """The models of the stage, by their names in the recipe; each is opened when it is first asked."""

    open: Callable[[Any], Engine]
    engines: dict[str, Engine] = field(default_factory=dict)

    def engine(self, name: str, model: Any) -> Engine:
        if name not in self.engines:
            self.engines[name] = self.open(model)
        return self.engines[name]

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()


class Work:
    """One source of the recipe's `prompts:` while its pipeline runs: config, models, templates, and what was made."""

    def __init__(self, job: Job, capability: str, staff: Staff, reject: Callable[[Reject], None], meter: Meter):
        self.job, self.capability, self.staff, self._reject, self.meter = job, capability, staff, reject, meter
        self.config: Any = job.config.prompts[capability]
        self.spec: PipelineSpec = pipeline_spec(self.config.from_)
        self.made: dict[str, Made] = {}
        self.documents: dict[str, Document] = {}
        self.tallies: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
        self._models = {TEACHER: job.config.model, **self.spec.models(self.config)}
        self.wordings = self._read_templates(self.config)
        self._journals: Counter[str] = Counter()
        self.stopped = ""
        """Why it ended before it had all rows, where a budget ended it or there was nothing to start from."""

    def _read_templates(self, config: SourceConfig) -> dict[str, Wording]:
        names = list(self.spec.templates(self.capability, config))
        sources = self.job.inputs.get(input_name("templates", self.capability), [None] * len(names))
        return {
            name: read_wording(Path(source) if name in config.templates else operator_file(name))
            for name, source in zip(names, sources, strict=True)
        }

    # What there is to work with.

    def rng(self, *parts: Any) -> Random:
        """Noise that depends on the stage's seed, the capability and the parts only."""
        return self.job.rng(self.capability, *parts)

    def input(self, name: str) -> Path:
        """A file that the spec's `files` named."""
        return Path(self.job.inputs[input_name(name, self.capability)])

    def model_name(self, model: str = TEACHER) -> str:
        """The recipe's name of a model that the spec's `models` named."""
        return self._models[model]

    def engine(self, model: str = TEACHER) -> Engine:
        """The model, ready to answer."""
        return self.staff.engine(self._models[model], self.model(model))

    def model(self, model: str) -> Any:
        """Where a model lies, or the Endpoint that serves it."""
        return self.job.inputs[TEACHER if model == TEACHER else input_name(model, self.capability)]

    def wording(self, template: str) -> Wording:
        """A template of the pipeline. Raises UserError for one that the spec's `templates` does not name."""
        if template not in self.wordings:
            raise UserError(
                f"{self.spec.module} asks {template!r}, which its spec's templates do not name; "
                f"they are {', '.join(self.wordings) or 'none'}"
            )
        return self.wordings[template]

    def journal(self, step: str) -> str:
        """A name for a journal that no other step has."""
        name = re.sub(r"[^\w.-]", "_", f"{self.capability}.{step}")
        self._journals[name] += 1
        return name if self._journals[name] == 1 else f"{name}-{self._journals[name]}"

    def item(self, values: Mapping[str, Any], language: str = "en", parents: Sequence[str] = ()) -> Item:
        """A new item; its id is the hash of what it holds, which must be JSON-able."""
        return Item(content_id(self.capability, language, values), values, language, tuple(parents))

    def seeds(self, name: str = "seeds") -> list[Prompt]:
        """The prompts of a file that the spec's `files` named, or where the recipe says `failures` in its place, those
        that the last evaluation answered wrongly: of this capability where it has any, else of all."""
        if getattr(self.config, name) != FAILURES:
            found: list[Prompt] = read_rows(self.input(name), "prompts", self.capability)
            return found
        evaluation, prompts = failures(self.job)
        wrong = {one.prompt_id for one in iter_table(evaluation, "samples") if one.value is not None and one.value < 1}
        failed = [prompt for folder in prompts for prompt in iter_table(folder, "prompts") if prompt.id in wrong]
        failed.sort(key=lambda prompt: prompt.id)
        if not failed:
            self.stopped = f"{self.capability}: the last evaluation has no failures to start from"
        return [prompt for prompt in failed if prompt.capability == self.capability] or failed

    @cached_property
    def earlier(self) -> dict[str, str]:
        """What was made of this capability before this stage, in other rounds too, by stages that made prompts: id →
        what a user said last. A pair counts under the id of the prompt that it took out of the pool."""
        found = {}
        for folder in map(Path, self.job.inputs.get(EARLIER, ())):
            for table in ("prompts", "rows", "preferences"):
                for one in iter_table(folder, table) if (folder / f"{table}.parquet").is_file() else ():
                    if one.capability == self.capability:
                        found[one.prompt_id if isinstance(one, Pair) else one.id] = asked_in(one)
        return found

    @property
    def lacking(self) -> int:
        """How many more are wanted."""
        return max(0, self.config.rows - len(self.made))

    def passes(self) -> Iterator[tuple[int, int]]:
        """(number, how many to make) while any are lacking: all that are wanted, then once what went missing.

        With a budget in waves, each as large as what is left of it pays for by what one has cost so far.
        """
        barren = 0
        for number in count(1):
            wanted = self._wave() if self.config.budget else self.lacking
            if self.stopped or not wanted or barren == PASSES or (number > PASSES and not self.config.budget):
                return
            before = len(self.made)
            yield number, wanted
            barren = barren + 1 if len(self.made) == before else 0

    def _wave(self) -> int:
        """How many the rest of the budget pays for; 0 at its end, which is then said."""
        left = 1 - self.spent_share
        if not self.made:
            affordable = FIRST_WAVE if left > 0 else 0
        else:
            affordable = int(left * len(self.made) / self.spent_share) if self.spent_share else self.lacking
        affordable = affordable if affordable >= LEAST_WAVE * len(self.made) else 0
        if self.lacking and not affordable:
            self._stop()
        return min(self.lacking, affordable)

    @property
    def spent_share(self) -> float:
        """The share of the budget that is spent, of tokens or money, whichever is more; 0 without a budget."""
        budget: Budget | None = self.config.budget
        if budget is None:
            return 0.0
        tokens, cost = sum(t.tokens for t in self.tallies.values()), sum(t.cost for t in self.tallies.values())
        return max(tokens / budget.tokens if budget.tokens else 0.0, cost / budget.cost if budget.cost else 0.0)

    def can_ask(self, items: Sequence[Item], step: str) -> bool:
        """Whether the budget lets a model be asked; the items are dropped where it does not."""
        if self.spent_share < 1:
            return True
        self._stop()
        for item in items:
            self.drop(item, step, OUT_OF_BUDGET)
        return False

    def _stop(self) -> None:
        budget: Budget = self.config.budget
        self.stopped = (
            self.stopped or f"{self.capability}: its budget of {budget} was reached before {self.config.rows:,}"
        )

    # What became of it.

    def tally(self, step: str, language: str) -> Tally:
        return self.tallies[step, language]

    def drop(
        self, item: Item, step: str, reason: str, text: object = "", row: Row | Prompt | Pair | None = None
    ) -> None:
        """Leave an item out: counted by its reason, and kept among the rejects with the text that it rests on."""
        self.tally(step, item.language).lose(reason)
        table = {Row: "rows", Prompt: "prompts", Pair: "preferences"}[type(row)] if row is not None else ""
        detail = {"capability": self.capability, "language": item.language, "step": step}
        record = to_record(row) if row is not None else {}
        self._reject(Reject(item.id, reason, str(text)[:SHOWN_CHARACTERS], detail, table, record))

    def keep(
        self, item: Item, prompt: Prompt | None = None, rows: Sequence[Row] = (), pairs: Sequence[Pair] = ()
    ) -> None:
        """What the item has become, unless it is malformed or there already. One of the three must be given."""
        made = Made(item.language, prompt, tuple(rows), tuple(pairs))
        reason = "duplicate" if made.id in self.made else fault(made)
        self.tally("keep", item.language).came += 1
        if reason:
            self.drop(item, "keep", reason, row=made.one)
            return
        self.tally("keep", item.language).left += 1
        self.made[made.id] = made

    def document(self, text: str, title: str, language: str = "en", source: str = "") -> str:
        """A text or seed that rows are made from: its id, to be among their `parents`. It is written, so that a row can
        be traced to it, where something that is kept has it as a parent."""
        made = Document(text, title, self.capability, language, source or self.config.from_)
        self.documents[made.id] = made
        return made.id

    def prompt(
        self, item: Item, messages: Sequence[Message], tools: Sequence[Tool] = (), check: Check | None = None
    ) -> Prompt:
        """The prompt that the item has become."""
        return Prompt(
            tuple(messages), self.capability, item.language, self._source(item), tuple(tools), check,
            item.parents or (item.id,), dict(item.made_by),
        )  # fmt: skip

    def row(
        self, item: Item, messages: Sequence[Message], tools: Sequence[Tool] = (), parents: Sequence[str] = (),
        labels: Mapping[str, Any] | None = None,
    ) -> Row:  # fmt: skip
        """The dialog that the item has become; its last message is the assistant's. `parents` are, for example, the id
        of the prompt it answers."""
        return Row(
            tuple(messages), self.capability, item.language, self._source(item), tuple(tools), None,
            dict(labels or {}), tuple(parents) or item.parents or (item.id,), dict(item.made_by),
        )  # fmt: skip

    def pair(self, item: Item, prompt: Prompt, chosen: Message, rejected: Message, rating: str | None = None) -> Pair:
        """The better answer to a prompt and the worse one."""
        return Pair(
            prompt.messages, chosen, rejected, self.capability, item.language, self._source(item), prompt.tools,
            None, rating, prompt.id, (prompt.id,), dict(item.made_by),
        )  # fmt: skip

    def known_texts(self) -> list[str]:
        """What users say in all that was kept so far, here and before: what a new prompt is to be different from."""
        return [*self.earlier.values(), *(made.text for made in self.made.values())]

    def _source(self, item: Item) -> str:
        return str(item.made_by.get("model", self.config.from_))
