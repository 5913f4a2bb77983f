"""Operators that keep or drop: a test, the language, likeness to what is there, a verifier, a judge, the sandbox."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial

from posttrain.checks import judge as judging
from posttrain.checks.judge import Comparison
from posttrain.checks.language import UNDETERMINED, identify
from posttrain.checks.sandbox import Limits, Ran, run_python
from posttrain.checks.verifiers import grade
from posttrain.data.overlap import runs_of, words
from posttrain.data.rows import Check, Message, Prompt, Response
from posttrain.engines.protocol import Sampling
from synth.operators.asking import put
from synth.operators.items import Item
from synth.operators.work import TEACHER, Work

LIKE = 0.7
"""Share of the fewer pairs of neighbouring words at which two texts are alike; Self-Instruct (2212.10560, section 2.2)
takes 0.7 of ROUGE-L."""
SANDBOXES = 4
"""Programs that run side by side."""


def sift(
    work: Work, items: Sequence[Item], test: Callable[[Item], str], step: str, of: str = ""
) -> list[Item]:  # fmt: skip
    """The items of which `test` says nothing; of the others it says why they are dropped. The reject shows `of`."""
    kept = []
    for item in items:
        work.tally(step, item.language).came += 1
        reason = test(item)
        if reason:
            work.drop(item, step, reason, item[of] if of else "")
        else:
            work.tally(step, item.language).left += 1
            kept.append(item)
    return kept


def in_language(work: Work, items: Sequence[Item], of: str, step: str = "language") -> list[Item]:
    """The items whose text `of` is in their language, or too short to tell."""

    def test(item: Item) -> str:
        found = identify(str(item[of]))[0]
        return "" if found in (item.language, UNDETERMINED) else "wrong language"

    return sift(work, items, test, step, of)


def different(
    work: Work, items: Sequence[Item], of: str, against: Iterable[str] = (), like: float = LIKE, step: str = "diversity"
) -> list[Item]:  # fmt: skip
    """The items whose text `of` is unlike the texts `against` and all kept before it."""
    seen = Likeness()
    for text in against:
        seen.add(text)

    def test(item: Item) -> str:
        if seen.nearest(item[of]) >= like:
            return "like another"
        seen.add(item[of])
        return ""

    return sift(work, items, test, step, of)


class Likeness:
    """Texts by their pairs of neighbouring words (of a single word, that word)."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, ...], list[int]] = {}
        self.sizes: list[int] = []

    def add(self, text: str) -> None:
        runs = _runs(text)
        for run in runs:
            self.texts.setdefault(run, []).append(len(self.sizes))
        self.sizes.append(len(runs))

    def nearest(self, text: str) -> float:
        """The largest share of common runs, of the fewer runs of both; 0 where there is none."""
        runs = _runs(text)
        common: dict[int, int] = {}
        for run in runs:
            for place in self.texts.get(run, ()):
                common[place] = common.get(place, 0) + 1
        return max((count / min(len(runs), self.sizes[place]) for place, count in common.items()), default=0.0)


def _runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return set(runs_of(found, 2)) or {tuple(found)}


def verify(work: Work, items: Sequence[Item], check: str, answer: str, step: str = "verify") -> list[Item]:
    """The items whose message `answer` passes the Check that stands under `check`; None there passes all."""

    def test(item: Item) -> str:
        wanted: Check | None = item[check]
        value = grade(wanted, item[answer]).value if wanted else 1.0
        return "ungradable" if value is None else "wrong" if value < 1.0 else ""

    return sift(work, items, test, step)


def judge(
    work: Work, items: Sequence[Item], prompt: Callable[[Item], Prompt], answer: str, into: str = "score", *,
    least: float = 0.0, criteria: str = judging.CRITERIA, model: str = TEACHER, step: str = "judge",
) -> list[Item]:  # fmt: skip
    """Grade the text or message `answer` to a prompt, 1 to 10, as `into`; one below `least`, or that the judge gave no
    readable grade, is dropped. Raises UserError for a judge that never keeps to the form."""
    items = items if work.can_ask(items, step) else []
    asked = {item.id: (prompt(item), _text(item[answer])) for item in items}
    found = judging.rate(asked, partial(_verdicts, work, step, model), criteria).found if asked else {}

    def test(item: Item) -> str:
        if item.id not in found:
            return "no verdict"
        return "" if found[item.id] >= least else "judged too low"

    return [item.plus(**{into: found[item.id]}) for item in sift(work, items, test, step)]


def prefer(
    work: Work, items: Sequence[Item], prompt: Callable[[Item], Prompt], better: str, worse: str, into: str = "rating",
    *, criteria: str = judging.CRITERIA, model: str = TEACHER, step: str = "compare",
) -> list[Item]:  # fmt: skip
    """The items whose `better` a judge prefers to `worse` in both orders, with its rating as `into`."""
    items = items if work.can_ask(items, step) else []
    asked = [Comparison(item.id, prompt(item), _text(item[better]), _text(item[worse])) for item in items]
    found = judging.compare(asked, partial(_verdicts, work, step, model), criteria).found if asked else {}

    def test(item: Item) -> str:
        if item.id not in found:
            return "no verdict"
        return {"first": "", "second": "the other is better", "tie": "tie"}[found[item.id].side]

    return [item.plus(**{into: found[item.id].rating}) for item in sift(work, items, test, step)]


def _text(answer: str | Message) -> str:
    return answer if isinstance(answer, str) else judging.text_of(answer)


def _verdicts(work: Work, step: str, model: str, prompts: list[Prompt], journal: str) -> list[Response]:
    """The judge's greedy answers, journaled."""
    sampling = Sampling(1, 0.0, 1.0, work.job.config.max_new_tokens)
    return put(work, prompts, sampling, model, step, f"{step}.{journal}")


def execute(
    work: Work, items: Sequence[Item], program: Callable[[Item], str], into: str = "ran", *,
    limits: Limits | None = None, must_end: bool = True, step: str = "execute",
) -> list[Item]:  # fmt: skip
    """Run each item's program in the sandbox; how it ended (a Ran) comes into `into`, and is kept in a journal.

    With `must_end` an item whose program ends by an error or over a limit is dropped. Raises UserError where this
    machine has no sandbox.
    """
    journal = work.job.journal(work.journal(step))
    lacking = [item for item in items if item.id not in journal]
    pool = ThreadPoolExecutor(SANDBOXES)
    try:
        ran = pool.map(lambda item: run_python(program(item), limits), lacking)
        for place, (item, result) in enumerate(zip(lacking, ran, strict=True), 1):
            journal.append(item.id, [asdict(result)], sync=place == len(lacking))
            work.job.progress(len(items) - len(lacking) + place, len(items), "programs")
    finally:
        pool.shutdown(cancel_futures=True)
    found = {item.id: Ran(**journal.chunks[item.id][0]) for item in items}

    def test(item: Item) -> str:
        result = found[item.id]
        if not must_end or (result.ended == "exit" and result.code == 0):
            return ""
        return "program fails" if result.ended == "exit" else f"program over its limit of {result.ended}"

    return sift(work, [item.plus(**{into: found[item.id]}) for item in items], test, step)
