"""Planted duplicates of known similarity, and what is kept of them."""

import random

import pytest
from pydantic import ValidationError

from synth.curate.dedupe import Entry, bands, different, find_duplicates, jaccard
from synth.curate.dedupe_spec import DedupeConfig
from synth.curate.texts import shingles
from tests.synth.curate.conftest import ask, kept_ids, pair, reasons, rejects, row

WORDS = [f"w{number}" for number in range(100)]
"""98 runs of three words."""


def changed(*places):
    """The text with other words at these places: each far from the others changes three runs."""
    return " ".join("other" if place in places else word for place, word in enumerate(WORDS))


def found(entries, **config):
    drops = find_duplicates(lambda: iter(entries), DedupeConfig(**config))
    return {entry_id: (drop.reason, drop.detail.get("of")) for entry_id, drop in drops.items()}


def test_jaccard_of_runs_worked_by_hand():
    texts = ("a b c d e", "a b c d x", " ".join(WORDS), changed(10))
    one, other, long, longer = (different(shingles(text, 3)) for text in texts)
    assert (len(one), jaccard(one, other)) == (3, 2 / 4)
    assert jaccard(long, longer) == pytest.approx(95 / 101)


@pytest.mark.parametrize("changes", [1, 2, 3, 4, 6])
def test_a_pair_on_either_side_of_the_threshold(changes):
    """Of 98 runs 3 a change differ, so the similarity is (98 − 3c) / (98 + 3c)."""
    similarity = (98 - 3 * changes) / (98 + 3 * changes)
    entries = [Entry("a", " ".join(WORDS)), Entry("b", changed(*range(10, 10 * changes + 1, 10)))]
    assert found(entries, threshold=similarity - 1e-9, recall=0.999) == {"b": ("near duplicate", "a")}
    assert found(entries, threshold=similarity + 1e-9, recall=0.999) == {}


def test_exact_duplicates_differ_in_white_space_only():
    entries = [Entry("b", "x  y\nz"), Entry("a", "x y z"), Entry("c", "x y z!")]
    assert found(entries, threshold=None) == {"b": ("exact duplicate", "a")}
    assert found(entries) == {"b": ("exact duplicate", "a"), "c": ("near duplicate", "a")}


def test_operators_tell_sums_apart():
    assert found([Entry("a", "what is 3 + 4 ?"), Entry("b", "what is 3 - 4 ?")]) == {}


def test_a_chain_of_small_changes_is_not_followed():
    """b is like a, c like b, but c not like a: c stays, since b, which it resembles, goes."""
    entries = [Entry("a", changed()), Entry("b", changed(10, 20, 30)), Entry("c", changed(10, 20, 30, 40, 50, 60))]
    assert found(entries, threshold=0.8) == {"b": ("near duplicate", "a")}
    best_in_the_middle = [Entry(e.id, e.text, 1.0 if e.id == "b" else 0.0) for e in entries]
    assert found(best_in_the_middle, threshold=0.8) == {"a": ("near duplicate", "b"), "c": ("near duplicate", "b")}


def test_agrees_with_all_pairs_compared_and_not_with_the_order():
    rng = random.Random(3)
    vocabulary = [f"v{number}" for number in range(400)]
    texts = [" ".join(rng.choices(vocabulary, k=60)) for _ in range(150)]
    for text in texts[:60]:
        listed = text.split()
        for place in rng.sample(range(60), rng.randrange(1, 6)):
            listed[place] = rng.choice(vocabulary)
        texts.append(" ".join(listed))
    entries = [Entry(f"{number:03}", text, rng.choice([0.0, 1.0])) for number, text in enumerate(texts)]
    drops = found(entries, threshold=0.7, recall=0.9999)
    assert drops.keys() == greedy(entries, 0.7)
    assert 20 < len(drops) < 60
    assert found(rng.sample(entries, len(entries)), threshold=0.7, recall=0.9999) == drops


def greedy(entries, threshold):
    """What goes, by comparing every text with every kept one, on sets of tuples."""
    kept, gone = [], set()
    for entry in sorted(entries, key=lambda e: (-e.score, e.id)):
        listed = entry.text.split()
        own = {tuple(listed[i : i + 3]) for i in range(len(listed) - 2)}
        if any(len(own & other) / len(own | other) >= threshold for other in kept):
            gone.add(entry.id)
        else:
            kept.append(own)
    return gone


@pytest.mark.parametrize(("threshold", "recall", "expected"), [(0.8, 0.9, 16), (0.8, 0.98, 32), (0.5, 0.98, 64)])
def test_bands_follow_from_the_recall(threshold, recall, expected):
    """At 0.8: 16 bands of 8 find 1 − (1 − 0.8⁸)^16 = 0.947, 32 of 4 find 1.000; at 0.5 32 of 4 find 0.873."""
    assert bands(threshold, 128, recall) == expected


def test_the_stage_keeps_the_best_reward_and_names_the_twin(curate):
    low, high, none = (row(changed(p), f"q{p}", reward=r) for p, r in ((1, 0.5), (2, 2.0), (3, None)))
    job = curate("dedupe", [low, high, none], text="answer", keep="reward")
    assert kept_ids(job) == {high.id}
    assert {reject.detail["of"] for reject in rejects(job).values()} == {high.id}
    assert job.summary["drops"] == {"near duplicate": 2}


def test_prompts_and_answers_can_be_compared_alone(curate):
    one, two = row("The answer is here.", "First question?"), row("The answer is here.", "Second question?")
    assert kept_ids(curate("dedupe", [one, two])) == {one.id, two.id}
    assert list(reasons(curate("dedupe", [two, one], text="answer")).items()) == [
        (max(one.id, two.id), "exact duplicate")
    ]


def test_prompts_and_pairs_are_thinned_too(curate):
    assert len(kept_ids(curate("dedupe", [ask("x y z"), ask("x  y z")], over="prompts"), "prompts")) == 1
    pairs = [pair("q", "yes", "no", margin=1.0), pair("q ", "yes", "no", margin=2.0)]
    assert kept_ids(curate("dedupe", pairs, over="pairs", keep="margin"), "pairs") == {pairs[1].id}
    with pytest.raises(ValidationError, match="prompts have no answers"):
        DedupeConfig(over="prompts", text="answer")
