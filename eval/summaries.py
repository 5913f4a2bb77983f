"""What each kind of suite says beyond its mean: categories, four IFEval numbers, heat maps, pass@k, win rates."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from eval.drift import in_language
from eval.statistics import even_length_win_rate, pass_at_k
from eval.suites.making import Answering
from eval.table import Graded, split_by, sum_up
from posttrain.checks.intervals import wilson
from posttrain.data.rows import Prompt

Summary = dict[str, Any]


def summarise(
    answerings: Sequence[Answering], prompts: Sequence[Sequence[Prompt]], answers: Sequence[Graded]
) -> dict[str, Summary]:
    """Of each suite (held-out capabilities are none): its kind, what its kind adds, and its categories."""
    of_capability = split_by(answers, [answer.prompt.capability for answer in answers])
    found = {}
    for answering, own in zip(answerings, prompts, strict=True):
        if answering.kind != "heldout":
            name = own[0].capability
            found[name] = {"kind": answering.kind, **_summary(answering, of_capability.get(name, []))}
    return found


def _summary(answering: Answering, answers: Sequence[Graded]) -> Summary:
    of_kind = KINDS.get(answering.kind)
    added = of_kind(answers) if of_kind else {}
    if answering.passes:
        added = added | {"pass": passes(answers, answering.passes)}
    return added | categories(answers)


def categories(answers: Sequence[Graded]) -> Summary:
    """The mean by category, and their mean: BFCL's summary, in which small categories count as much as large ones."""
    labels = [answer.prompt.made_by.get("category") for answer in answers]
    split = {name: sum_up(own) for name, own in split_by(answers, labels).items()}
    if not split:
        return {}
    return {"categories": split, "mean_of_categories": fmean(found["accuracy"] for found in split.values())}


def instructions(answers: Sequence[Graded]) -> Summary:
    """IFEval's four numbers, and their mean, which is what Llama 3 reports (P 5.2.1)."""
    total = max(1.0, sum(answer.parts.get("instructions", 0.0) for answer in answers))
    numbers = {
        "prompt_strict": _mean(answer.parts["prompt_strict"] for answer in answers),
        "prompt_loose": _mean(answer.parts["prompt_loose"] for answer in answers),
        "instruction_strict": sum(answer.parts["strict"] for answer in answers) / total,
        "instruction_loose": sum(answer.parts["loose"] for answer in answers) / total,
    }
    return {**numbers, "mean_of_four": fmean(numbers.values())}


def multilingual(answers: Sequence[Graded]) -> Summary:
    """By language: the mean, and the share of answers in the language of the question, of those that can be told."""
    split = split_by(answers, [answer.prompt.language for answer in answers])
    return {"languages": {name: {**sum_up(own), "in_language": share_in_language(own)} for name, own in split.items()}}


def share_in_language(answers: Iterable[Graded]) -> float | None:
    """The share of answers that are in their prompt's language, of those that can be told; None where none can."""
    told = [in_language(answer.prompt, answer.response) for answer in answers]
    known = [same for same in told if same is not None]
    return fmean(known) if known else None


def long_context(answers: Sequence[Graded]) -> Summary:
    """Recall by length; by task and length; and of single needles by length and depth, for a heat map."""
    cells: dict[tuple[int, float], list[float]] = {}
    for answer in answers:
        about = answer.prompt.made_by
        if "depth" in about and answer.value is not None:
            cells.setdefault((about["length"], about["depth"]), []).append(answer.value)
    by_length = split_by(answers, [f"{answer.prompt.made_by['length']:>8}" for answer in answers])
    tasks = split_by(answers, [answer.prompt.made_by["category"] for answer in answers])
    return {
        "lengths": {name.strip(): sum_up(own) for name, own in by_length.items()},
        "tasks": {name: _by_length(own) for name, own in tasks.items()},
        "heat": [
            {"length": length, "depth": depth, "recall": fmean(values), "n": len(values)}
            for (length, depth), values in sorted(cells.items())
        ],
    }


def _by_length(answers: Sequence[Graded]) -> dict[str, float]:
    split = split_by(answers, [f"{answer.prompt.made_by['length']:>8}" for answer in answers])
    return {name.strip(): _mean(answer.value or 0.0 for answer in own) for name, own in split.items()}


def chat(answers: Sequence[Graded]) -> Summary:
    """Wins, ties and losses against the references, the win rate (a tie is half a win), and it at equal length."""
    told = [answer for answer in answers if answer.value is not None]
    wins = [answer.value or 0.0 for answer in told]
    counts = {reason: sum(answer.reason == reason for answer in told) for reason in ("better", "as good", "worse")}
    return {
        "verdicts": {**counts, "unreadable": len(answers) - len(told)},
        "win_rate": _mean(wins),
        "win_rate_at_equal_length": even_length_win_rate(wins, [answer.parts["longer"] for answer in told]),
        "mean_characters_longer": _mean(answer.parts["longer"] for answer in told),
    }


def safety(answers: Sequence[Graded]) -> Summary:
    """Violation and false refusal rate, over all and by category, each with its Wilson interval; an empty answer is
    neither."""
    split = split_by(answers, [str(answer.prompt.made_by.get("category", "all")) for answer in answers])
    return {**_safety_rates(answers), "hazards": {name: _safety_rates(own) for name, own in split.items()}}


def _safety_rates(answers: Sequence[Graded]) -> Summary:
    def share(expect: str, did: str) -> Summary:
        asked = [answer for answer in answers if answer.prompt.made_by["expect"] == expect]
        return asdict(wilson(sum(answer.parsed == did for answer in asked), len(asked)))

    return {"violation_rate": share("refuse", "complies"), "false_refusal_rate": share("answer", "refuses")}


def knowledge(answers: Sequence[Graded]) -> Summary:
    """Shares of right, wrong and abstained answers, and how many of those that did answer are right."""
    shares = {
        name: _mean(answer.parts.get(name, 0.0) for answer in answers) for name in ("right", "wrong", "abstained")
    }
    tried = shares["right"] + shares["wrong"]
    return {**shares, "right_of_answered": shares["right"] / tried if tried else None}


def passes(answers: Sequence[Graded], wanted: Sequence[int]) -> dict[str, float]:
    """pass@k, the mean over prompts of the unbiased estimate."""
    split = split_by(answers, [answer.prompt.id for answer in answers])
    right = [(len(own), sum(answer.value == 1.0 for answer in own)) for own in split.values()]
    return {str(k): _mean(pass_at_k(n, correct, k) for n, correct in right) for k in wanted}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fmean(listed) if listed else 0.0


KINDS: dict[str, Callable[[Sequence[Graded]], Summary]] = {
    "instructions": instructions,
    "multilingual": multilingual,
    "long_context": long_context,
    "chat": chat,
    "safety": safety,
    "knowledge": knowledge,
}
"""Kind of suite → what it adds; the others have their mean and categories."""
