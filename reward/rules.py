"""The rules of selection: one short function each, and the tables of them.

A row rule takes a contest and returns the chosen places, best first; a pair rule returns (better, worse) places. Both
write into `contest.lost` why each other place lost, and return nothing with the prompt's own reason.
"""

from collections.abc import Callable
from itertools import combinations, product

from reward.answers import answer_key
from reward.contest import Contest
from reward.select_spec import PairRule, RowRule

Chosen = tuple[list[int], str]
Paired = tuple[list[tuple[int, int]], str]

LIST_LENGTH = 3
"""Answers of a ranked list where a recipe gives no number: Llama 3 ranks two or three (4.1.2)."""


def best(contest: Contest, rule: RowRule) -> Chosen:
    """The highest score, the first of equals."""
    return _first(contest, contest.ranked(rule.score, contest.choosable), 1, "lower_score")


def top_n(contest: Contest, rule: RowRule) -> Chosen:
    """The `n` different answers of highest score."""
    return _first(contest, contest.distinct(contest.ranked(rule.score, contest.choosable)), rule.n, "lower_score")


def threshold(contest: Contest, rule: RowRule) -> Chosen:
    """Different answers whose score is at least `least`, best first, `n` at most."""
    assert rule.least is not None
    ranked = contest.ranked(rule.score, contest.choosable)
    high = [place for place in ranked if (contest.score(rule.score, place) or 0.0) >= rule.least]
    contest.lost |= dict.fromkeys(set(ranked) - set(high), "below_threshold")
    chosen, _ = _first(contest, contest.distinct(high), rule.n, "lower_score")
    return chosen, "" if chosen else "all_below_threshold"


def all_correct(contest: Contest, rule: RowRule) -> Chosen:
    """Different answers that the check passes, in the order they were sampled, `n` at most."""
    right, wrong = contest.right_and_wrong(contest.choosable)
    contest.lost |= dict.fromkeys(wrong, "wrong")
    chosen, _ = _first(contest, contest.distinct(right), rule.n, "not_drawn")
    return chosen, "" if chosen else "none_verified"


def verified(contest: Contest, rule: RowRule) -> Chosen:
    """One of the answers that the check passes, by seed."""
    right, wrong = contest.right_and_wrong(contest.choosable)
    contest.lost |= dict.fromkeys(wrong, "wrong")
    return _drawn(contest, right) if right else ([], "none_verified")


def any_one(contest: Contest, rule: RowRule) -> Chosen:
    """Any answer, by seed."""
    return _drawn(contest, contest.choosable)


def _first(contest: Contest, places: list[int], n: int, reason: str) -> Chosen:
    """The first `n` places, all for 0; the rest have lost."""
    chosen = places[: n or None]
    contest.lost |= dict.fromkeys(set(places) - set(chosen), reason)
    return chosen, "" if chosen else "no_score"


def _drawn(contest: Contest, places: list[int]) -> Chosen:
    drawn = contest.draw("row", places)
    contest.lost |= dict.fromkeys(set(places) - {drawn}, "not_drawn")
    return [drawn], ""


ROW_RULES: dict[str, Callable[[Contest, RowRule], Chosen]] = {
    "best": best, "top_n": top_n, "threshold": threshold, "all_correct": all_correct, "verified": verified,
    "random": any_one,
}  # fmt: skip


def best_vs_worst(contest: Contest, rule: PairRule) -> Paired:
    """The highest score against the lowest, the first of equals on both sides."""
    ranked = contest.ranked(rule.score, contest.places)
    winners = [place for place in ranked if place not in contest.guarded]
    if not winners:
        return [], contest.unchosen(ranked)
    others = _rivals(contest, rule, winners[0], ranked)
    if not others:
        return [], "one_model"
    lowest = contest.score(rule.score, others[-1])
    worst = next(place for place in others if contest.score(rule.score, place) == lowest)
    return _apart(contest, rule, winners[0], worst)


def best_vs_random(contest: Contest, rule: PairRule) -> Paired:
    """The highest score against one of the other answers that differ from it and lie the margin below, by seed."""
    ranked = contest.ranked(rule.score, contest.places)
    winner = next((place for place in ranked if place not in contest.guarded), None)
    if winner is None:
        return [], contest.unchosen(ranked)
    rivals = _rivals(contest, rule, winner, ranked)
    others = [place for place in rivals if _apart(contest, rule, winner, place)[0]]
    if not others:
        return [], _apart(contest, rule, winner, rivals[-1])[1] if rivals else "one_model"
    return [(winner, contest.draw("pair", sorted(others)))], ""


def ranked_list(contest: Contest, rule: PairRule) -> Paired:
    """`n` different answers spread evenly over the ranks, the best among them: all pairs that lie the margin apart."""
    ranked = contest.distinct(contest.ranked(rule.score, contest.places))
    top = next((number for number, place in enumerate(ranked) if place not in contest.guarded), None)
    if top is None:
        return [], contest.unchosen(ranked)
    ranked = ranked[top:]
    wanted = min(rule.n or LIST_LENGTH, len(ranked))
    if wanted < 2:
        return [], "equal_answers"
    listed = [ranked[round(step * (len(ranked) - 1) / (wanted - 1))] for step in range(wanted)]
    met = [two for two in combinations(listed, 2) if _rivals(contest, rule, two[0], [two[1]])]
    pairs = [two for two in met if two[0] not in contest.guarded and _apart(contest, rule, *two)[0]]
    return pairs, "" if pairs else "below_margin" if met else "one_model"


def right_vs_wrong(contest: Contest, rule: PairRule) -> Paired:
    """Different right answers against different wrong ones, `n` pairs by seed."""
    right, wrong = contest.right_and_wrong(contest.places)
    right = [place for place in contest.distinct(right) if place not in contest.guarded]
    met = list(product(right, contest.distinct(wrong)))
    pairs = [two for two in met if _rivals(contest, rule, two[0], [two[1]])]
    if not pairs:
        return [], "one_model" if met else "none_right" if not right else "none_wrong"
    return sorted(contest.rng("pair", contest.item.prompt.id).sample(pairs, min(rule.n or 1, len(pairs)))), ""


def _rivals(contest: Contest, rule: PairRule, better: int, places: list[int]) -> list[int]:
    """Those of the places that may stand against an answer in a pair."""
    if rule.models == "any":
        return places
    model = contest.model(better)
    return [place for place in places if contest.model(place) != model]


def _apart(contest: Contest, rule: PairRule, better: int, worse: int) -> Paired:
    """The two as a pair, or why they are none: equal answers, or scores that are equal or too near."""
    responses = contest.item.responses
    high, low = contest.score(rule.score, better), contest.score(rule.score, worse)
    assert high is not None and low is not None, "ranked places have scores"
    if answer_key(responses[better]) == answer_key(responses[worse]):
        return [], "equal_answers"
    return ([], "below_margin") if high - low < rule.min_margin or high <= low else ([(better, worse)], "")


PAIR_RULES: dict[str, Callable[[Contest, PairRule], Paired]] = {
    "best_vs_worst": best_vs_worst, "best_vs_random": best_vs_random, "ranked_list": ranked_list,
    "right_vs_wrong": right_vs_wrong,
}  # fmt: skip
"""`edited` is not among them: its pairs are a person's, and no candidates compete (reward.select)."""
