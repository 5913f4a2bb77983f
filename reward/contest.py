"""The candidates of one prompt while a choice is made: who may win, by which score, and why the others lost."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from posttrain.chat.messages import undeclared
from posttrain.checks.language import UNDETERMINED, identify
from posttrain.data.rows import Candidates
from posttrain.errors import UserError
from reward.answers import RIGHT, answer_key, grade_of, is_whole, message_of, messages_of
from reward.scorers import REWARD, each
from reward.select_spec import SelectConfig

Rng = Callable[..., random.Random]


@dataclass
class Contest:
    """`places` are the answers that may be looked at, in order; `lost` has a reason for every place that lost so far.

    `guarded` has a reason for every place that may not be chosen (too long, or calling a tool that its prompt does not
    declare), though it may be rejected in a pair.
    """

    item: Candidates
    places: list[int]
    lost: dict[int, str]
    guarded: dict[int, str]
    rng: Rng
    grades: dict[int, float | None] = field(default_factory=dict)

    @property
    def choosable(self) -> list[int]:
        return [place for place in self.places if place not in self.guarded]

    def unchosen(self, places: list[int]) -> str:
        """Why none of the places with a score may be chosen."""
        return self.guarded[places[0]] if places else "no_score"

    def score(self, scorer: str, place: int) -> float | None:
        """A scorer's value of an answer, None where it has none. Raises UserError for one that is not finite, or a
        scorer that did not run."""
        values = self.item.scores.get(scorer)
        if values is None:
            known = ", ".join(sorted(self.item.scores)) or "none"
            raise UserError(f"select ranks by {scorer!r}, but there are no such scores; there are {known}")
        value = values[place]
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"the {scorer} score of response {self.item.responses[place].id} is {value}; a model or scorer that "
                "gives no number must not select: look at the stage that scored, then run it again with --force"
            )
        return value

    def ranked(self, scorer: str, places: list[int]) -> list[int]:
        """Places by falling score, the first of equals first; those without a score have lost."""
        values = {place: self.score(scorer, place) for place in places}
        self.lost |= {place: "no_score" for place, value in values.items() if value is None}
        scored = [(-value, place) for place, value in values.items() if value is not None]
        return [place for _, place in sorted(scored)]

    def distinct(self, places: list[int]) -> list[int]:
        """The first place of every different answer; the others have lost."""
        seen: dict[str, int] = {}
        for place in places:
            first = seen.setdefault(answer_key(self.item.responses[place]), place)
            if first != place:
                self.lost[place] = "equal_to_another"
        return list(seen.values())

    def right_and_wrong(self, places: list[int]) -> tuple[list[int], list[int]]:
        """Places that the prompt's check passes, and those it does not; others have lost."""
        right: list[int] = []
        wrong: list[int] = []
        for place in places:
            if place not in self.grades:
                self.grades[place] = grade_of(self.item.prompt, self.item.responses[place])
            grade = self.grades[place]
            if grade is None:
                self.lost[place] = "not_graded"
            else:
                (right if grade == RIGHT else wrong).append(place)
        return right, wrong

    def model(self, place: int) -> str:
        """Who gave an answer."""
        return str(self.item.responses[place].made_by.get("model"))

    def draw(self, what: str, places: list[int]) -> int:
        """One of the places by seed; an answer is as likely as the model gave it often."""
        often = each(places, [self.item.responses[place].count for place in places])
        return self.rng(what, self.item.prompt.id).choice(often)

    def reward(self, place: int) -> float | None:
        """The reward model's value, where one scored."""
        return self.score(REWARD, place) if REWARD in self.item.scores else None


def open_contest(item: Candidates, config: SelectConfig, rng: Rng) -> Contest:
    """Leave out answers beyond K', cut or empty ones, and those in another language; mark those that are too long or
    call a tool that their prompt does not declare."""
    lost: dict[int, str] = {}
    first: dict[str, int] = {}
    for place, response in enumerate(item.responses):
        number = response.index - first.setdefault(str(response.made_by.get("model")), response.index)
        if config.k and number >= config.k:
            lost[place] = "beyond_k"
        elif not is_whole(response):
            lost[place] = "cut" if response.finish != "stop" else "empty"
        elif config.language == "match" and not _in_language(item, place):
            lost[place] = "other_language"
    places = [place for place in range(len(item.responses)) if place not in lost]
    guarded = dict.fromkeys(_too_long(item, places, config.longest), "too_long") | _undeclared(item, places)
    return Contest(item, places, lost, guarded, rng)


def _in_language(item: Candidates, place: int) -> bool:
    """Whether an answer is in its prompt's language as far as can be told; calls have none."""
    message = message_of(item.responses[place])
    if message.get("tool_calls"):
        return True
    found, _ = identify(str(message.get("content") or ""))
    return found in (UNDETERMINED, item.prompt.language)


def _undeclared(item: Candidates, places: list[int]) -> dict[int, str]:
    tools = item.prompt.tools
    return {p: "undeclared_tool" for p in places if undeclared(messages_of(item.responses[p]), tools)}


def _too_long(item: Candidates, places: list[int], longest: float) -> set[int]:
    if not longest or not places:
        return set()
    tokens, counts = [item.responses[p].tokens for p in places], [item.responses[p].count for p in places]
    most = longest * median(each(tokens, counts))
    return {place for place in places if item.responses[place].tokens > most}
