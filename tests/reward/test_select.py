"""Which candidates become rows and pairs, with every loss counted."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from posttrain.data.rows import EDITED, Check, Pair, Prompt, Response, gather
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from reward.contest import open_contest
from reward.rules import PAIR_RULES, ROW_RULES
from reward.select import run, select_pairs, select_rows
from reward.select_spec import PairRule, RowRule, SelectConfig, needs_scores, provides
from tests.reward.conftest import ask, call, say, scores_of

ITALY = ask("Capital of Italy?")
TEXTS = ("Ulm", "Rom", "Bonn", "Rom is…")


def candidates(prompt=ITALY, texts=TEXTS, combined=(0.1, 1.2, -1.3, 2.0), reward=(1.0, 2.0, 3.0, 9.0)):
    responses = say(prompt, *texts)
    return gather([prompt], responses, scores_of(responses, combined=combined, reward=reward))[0]


def rows_of(job_of, pool, **rule):
    rows, lost, _ = select_rows(job_of(SelectConfig(sft=RowRule(**rule)), {}), pool)
    return rows, lost


def pairs_of(job_of, pool, **rule):
    pairs, lost, _ = select_pairs(job_of(SelectConfig(pairs=PairRule(**rule)), {}), pool)
    return pairs, lost


def test_best_is_the_highest_combined_answer_that_was_not_cut(job_of):
    (row,), lost = rows_of(job_of, [candidates()])
    assert row.messages == (*ITALY.messages, {"role": "assistant", "content": "Rom"})
    assert (row.reward, row.capability, row.parents[0]) == (2.0, "general", ITALY.id)
    assert row.made_by == {"stage": "stage", "round": 1, "rule": "best", "model": "base"}
    assert lost == {}


def test_a_call_becomes_a_tool_call_again(job_of):
    (row,), _ = rows_of(
        job_of, [candidates(with_tool(ITALY), texts=(call("f", a=1), "x", "y", "z"), combined=(3, 2, 1, 0))]
    )
    assert row.messages[-1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


def test_verified_takes_only_right_answers(job_of):
    (row,), _ = rows_of(job_of, [candidates(combined=(9, 0, 1, 2))], rule="verified")
    assert row.messages[-1]["content"] == "Rom"
    rows, lost = rows_of(job_of, [candidates(texts=("Ulm", "Bonn", "Köln", "Genf"))], rule="verified")
    assert (rows, lost) == ([], {"none_verified": 1})


def test_random_is_fixed_by_the_seed_and_not_by_the_score(job_of):
    pool = [candidates(ask(f"q{number}")) for number in range(60)]
    rows, _ = rows_of(job_of, pool, rule="random")
    again, _ = rows_of(job_of, pool, rule="random")
    assert [row.id for row in rows] == [row.id for row in again]
    assert {row.messages[-1]["content"] for row in rows} == {"Ulm", "Rom", "Bonn"}


def test_prompts_whose_answers_are_all_cut_are_counted(job_of):
    item = candidates(texts=("a…", "b…", " ", "d…"))
    assert rows_of(job_of, [item]) == ([], {"all_cut": 1})
    assert pairs_of(job_of, [item]) == ([], {"all_cut": 1})


def test_top_share_keeps_the_best_prompts_of_each_capability(job_of):
    pool = [
        candidates(ask(f"{capability} {reward}", capability=capability), reward=(0, reward, 0, 0))
        for capability in ("tool_use", "general")
        for reward in (1.0, 5.0, 3.0)
    ]
    rows, lost = rows_of(job_of, pool, top_share=0.5)
    assert sorted((row.capability, row.reward) for row in rows) == [
        ("general", 3.0), ("general", 5.0), ("tool_use", 3.0), ("tool_use", 5.0),
    ]  # fmt: skip
    assert lost == {"below_top_share": 2}


def test_top_share_by_margin_prefers_candidates_that_lie_apart(job_of):
    near, far = candidates(ask("near"), combined=(0, 0.1, 0, 0)), candidates(ask("far"), combined=(-2, 2, 0, 0))
    rows, _ = rows_of(job_of, [near, far], top_share=0.5, top_by="margin")
    assert [row.parents[0] for row in rows] == [far.prompt.id]


def test_a_pair_is_best_against_worst_with_its_margin(job_of):
    (pair,), lost = pairs_of(job_of, [candidates()], min_margin=2.4)
    assert (pair.chosen["content"], pair.rejected["content"]) == ("Rom", "Bonn")
    assert pair.margin == pytest.approx(2.5)
    assert pair.prompt_id == ITALY.id
    assert lost == {}
    assert pairs_of(job_of, [candidates()], min_margin=2.6) == ([], {"below_margin": 1})


def test_equal_answers_and_constant_scores_make_no_pair(job_of):
    spelt = (call("f", a=1), '{ "name":"f", "parameters":{"a":1} }')
    responses = candidates(with_tool(ITALY), texts=spelt, combined=(1, -1), reward=(0, 0))
    assert pairs_of(job_of, [responses]) == ([], {"equal_answers": 1})
    assert pairs_of(job_of, [candidates(combined=(0, 0, 0, 0))])[1] in ({"below_margin": 1}, {"equal_answers": 1})


def test_prompts_without_scores_are_left_out_and_counted(job_of, folder_of):
    annotated = ask("annotated")
    scored, other = say(ITALY, *TEXTS), say(annotated, *TEXTS)
    inputs = folder_of(
        prompts=[ITALY, annotated],
        responses=[*scored, *other],
        scores=scores_of(scored, combined=(0.1, 1.2, -1.3, 2.0)),
    )
    job = job_of(SelectConfig(), inputs)
    run(job)
    assert [row.parents[0] for row in read_table(job.folder, "rows")] == [ITALY.id]
    assert job.rows == {"rows": 1, "pairs": 1, "rejects": 5}
    assert job.summary["drops"] == {"prompts": {"not_scored": 1}, "rows": {}, "pairs": {}}


def test_random_works_without_scores(job_of, folder_of):
    job = job_of(SelectConfig(sft="random", pairs=None), folder_of(prompts=[ITALY], responses=say(ITALY, *TEXTS)))
    run(job)
    assert job.rows == {"rows": 1, "rejects": 3}


def test_an_empty_selection_says_why(job_of, folder_of):
    prompt = Prompt(({"role": "user", "content": "x"},), "general")
    inputs = folder_of(prompts=[prompt], responses=say(prompt, "a…", "b…"))
    with pytest.raises(UserError, match=r"no rows \(all cut 1\)"):
        run(job_of(SelectConfig(sft="random", pairs=None), inputs))


def test_every_loser_is_kept_with_its_reason_and_who_won(job_of, folder_of):
    scored = say(ITALY, *TEXTS)
    inputs = folder_of(
        prompts=[ITALY], responses=scored, scores=scores_of(scored, combined=(0.1, 1.2, -1.3, 2.0), reward=(1, 2, 3, 9))
    )
    job = job_of(SelectConfig(), inputs)
    run(job)
    losers = read_table(job.folder, "rejects")
    of_rows = {loser.text: loser for loser in losers if loser.detail["for"] == "rows"}
    assert {text: loser.reason for text, loser in of_rows.items()} == {
        "Ulm": "lower_score", "Bonn": "lower_score", "Rom is…": "cut",
    }  # fmt: skip
    assert of_rows["Ulm"].place == scored[0].id
    assert of_rows["Ulm"].detail == {
        "for": "rows", "prompt_id": ITALY.id, "combined": 0.1, "chosen": [scored[1].id], "count": 1,
    }  # fmt: skip
    assert {loser.text: loser.reason for loser in losers if loser.detail["for"] == "pairs"} == {
        "Ulm": "between", "Rom is…": "cut",
    }  # fmt: skip
    assert job.summary["candidates"] == {
        "pairs: between": 1, "pairs: cut": 1, "rows: cut": 1, "rows: lower_score": 2,
    }  # fmt: skip


FIVE = ("Rom", "Ulm", " Rom", "Bonn", "Köln")
BY_RANK = {"combined": (2.0, 1.0, 1.5, -1.0, -2.0), "reward": (2.0, 1.0, 1.5, -1.0, -2.0)}


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def with_tool(prompt):
    return replace(prompt, tools=(TOOL,), id="")


def texts_of(rows):
    return [row.messages[-1]["content"] for row in rows]


def reasons_of(job_of, item, **config):
    _, _, losers = select_rows(job_of(SelectConfig(**config), {}), [item])
    return {loser.place: loser.reason for loser in losers}


def test_top_n_takes_the_highest_different_answers(job_of):
    rows, _ = rows_of(job_of, [candidates(texts=FIVE, **BY_RANK)], rule="top_n", n=2)
    assert texts_of(rows) == ["Rom", "Ulm"]
    rows, _ = rows_of(job_of, [candidates(texts=FIVE, **BY_RANK)], rule="top_n", n=9)
    assert texts_of(rows) == ["Rom", "Ulm", "Bonn", "Köln"]


def test_threshold_takes_what_is_high_enough_by_the_named_scorer(job_of):
    item = candidates(texts=FIVE, combined=(0, 0, 0, 0, 0), reward=(0.2, 0.9, 0.8, 0.5, 0.4))
    rows, _ = rows_of(job_of, [item], rule="threshold", score="reward", least=0.5)
    assert texts_of(rows) == ["Ulm", "Rom", "Bonn"]
    rows, _ = rows_of(job_of, [item], rule="threshold", score="reward", least=0.5, n=1)
    assert texts_of(rows) == ["Ulm"]
    assert rows_of(job_of, [item], rule="threshold", score="reward", least=0.95) == ([], {"all_below_threshold": 1})


def test_all_correct_takes_every_different_right_answer(job_of):
    prompt = Prompt(({"role": "user", "content": "?"},), "math", check=Check("exact", {"answers": ["Rom", "Roma"]}))
    item = candidates(prompt, texts=("Ulm", "Roma", "Rom", "Roma "), combined=(9, 0, 1, 2))
    rows, _ = rows_of(job_of, [item], rule="all_correct")
    assert texts_of(rows) == ["Roma", "Rom"]
    rows, _ = rows_of(job_of, [item], rule="all_correct", n=1)
    assert texts_of(rows) == ["Roma"]


def test_fewer_candidates_are_the_first_of_each_model(job_of):
    item = candidates(texts=FIVE, **BY_RANK)
    item = replace(
        item, responses=tuple(replace(r, made_by={"model": "ab"[n > 2]}) for n, r in enumerate(item.responses))
    )
    assert texts_of(select_rows(job_of(SelectConfig(k=1), {}), [item])[0]) == ["Rom"]
    found = reasons_of(job_of, item, k=1)
    assert [found.get(r.id) for r in item.responses] == [None, "beyond_k", "beyond_k", "lower_score", "beyond_k"]


def test_the_length_guard_keeps_an_answer_from_winning_but_not_from_losing(job_of):
    texts = ("Rom", "Ulm", "Genf", "Rom " * 10)
    item = candidates(texts=texts, combined=(1.0, 0.5, 0.0, 2.0))
    config = SelectConfig(longest=3.0)
    assert texts_of(select_rows(job_of(config, {}), [item])[0]) == ["Rom"]
    assert reasons_of(job_of, item, longest=3.0)[item.responses[3].id] == "too_long"
    (pair,), _, _ = select_pairs(job_of(config, {}), [replace(item, scores={"combined": (1.0, 0.5, 0.0, -2.0)})])
    assert (pair.chosen["content"], pair.rejected["content"]) == ("Rom", ("Rom " * 10).strip())
    assert texts_of(select_rows(job_of(SelectConfig(longest=0), {}), [item])[0]) == [("Rom " * 10).strip()]


def test_a_call_of_an_undeclared_tool_cannot_win_but_may_be_rejected(job_of):
    item = candidates(texts=(call("f", a=1), "Rom", "Ulm", "Bonn"), combined=(3.0, 2.0, 1.0, 1.5))
    assert texts_of(rows_of(job_of, [item])[0]) == ["Rom"]
    assert reasons_of(job_of, item)[item.responses[0].id] == "undeclared_tool"
    (pair,), _ = pairs_of(job_of, [replace(item, scores={"combined": (-3.0, 2.0, 1.0, 1.5)})])
    assert pair.rejected["tool_calls"][0]["function"]["name"] == "f"
    alone = candidates(texts=(call("f", a=1), call("f", a=2), "Rom…", ""))
    assert pairs_of(job_of, [alone])[1] == {"undeclared_tool": 1}


def test_an_answer_in_another_language_cannot_win_whatever_its_score(job_of):
    prompt = Prompt(({"role": "user", "content": "Wie ist das Wetter?"},), "multilingual", "de", tools=(TOOL,))
    texts = ("The weather is nice and warm today.", "Das Wetter ist heute schön und warm.", "42", call("f", a=1))
    item = candidates(prompt, texts=texts, combined=(3.0, 1.0, 0.0, -1.0))
    config = SelectConfig(language="match")
    assert texts_of(select_rows(job_of(config, {}), [item])[0]) == [texts[1]]
    found = reasons_of(job_of, item, language="match")
    assert found == {
        item.responses[0].id: "other_language", item.responses[2].id: "lower_score",
        item.responses[3].id: "lower_score",
    }  # fmt: skip
    english = candidates(prompt, texts=(texts[0],) * 4)
    assert select_rows(job_of(config, {}), [english])[1] == {"other_language": 1}


def test_capabilities_have_their_own_rules(job_of):
    pool = [candidates(ask("f?", capability="tool_use")), candidates(ask("g?", capability="math")), candidates()]
    config = SelectConfig.model_validate(
        {"sft": "best", "capabilities": {"tool_use": {"sft": "none"}, "math": {"sft": "verified", "pairs": "none"}}}
    )
    rows, lost, _ = select_rows(job_of(config, {}), pool)
    assert sorted((row.capability, row.made_by["rule"]) for row in rows) == [("general", "best"), ("math", "verified")]
    assert lost == {"off_for_capability": 1}
    pairs, lost, _ = select_pairs(job_of(config, {}), pool)
    assert sorted(pair.capability for pair in pairs) == ["general", "tool_use"]
    assert lost == {"off_for_capability": 1}


def test_best_against_a_random_other_that_lies_the_margin_below(job_of):
    pool = [candidates(ask(f"q{n}"), texts=FIVE, **BY_RANK) for n in range(40)]
    pairs, lost = pairs_of(job_of, pool, rule="best_vs_random", min_margin=2.0)
    assert {pair.chosen["content"] for pair in pairs} == {"Rom"}
    assert {pair.rejected["content"] for pair in pairs} == {"Bonn", "Köln"}
    assert lost == {}
    assert pairs_of(job_of, pool[:1], rule="best_vs_random", min_margin=9.0) == ([], {"below_margin": 1})


def test_a_ranked_list_is_spread_over_the_ranks_and_all_its_pairs_stand(job_of):
    item = candidates(texts=("a", "b", "c", "d", "e"), combined=(5, 4, 3, 2, 1), reward=(0,) * 5)
    pairs, _ = pairs_of(job_of, [item], rule="ranked_list")
    assert [(p.chosen["content"], p.rejected["content"], p.margin) for p in pairs] == [
        ("a", "c", 2), ("a", "e", 4), ("c", "e", 2),
    ]  # fmt: skip
    pairs, _ = pairs_of(job_of, [item], rule="ranked_list", n=2)
    assert [(p.chosen["content"], p.rejected["content"]) for p in pairs] == [("a", "e")]
    pairs, _ = pairs_of(job_of, [item], rule="ranked_list", n=3, min_margin=3)
    assert [(p.chosen["content"], p.rejected["content"]) for p in pairs] == [("a", "e")]


def test_right_against_wrong_needs_no_scores(job_of, folder_of):
    config = SelectConfig.model_validate({"sft": "none", "pairs": {"rule": "right_vs_wrong", "n": 9}})
    job = job_of(config, folder_of(prompts=[ITALY], responses=say(ITALY, "Ulm", "Rom", "Bonn", "Rom ", "Ulm")))
    run(job)
    pairs = read_table(job.folder, "pairs")
    assert sorted((p.chosen["content"], p.rejected["content"]) for p in pairs) == [("Rom", "Bonn"), ("Rom", "Ulm")]
    assert {p.margin for p in pairs} == {None}
    assert pairs_of(job_of, [candidates(texts=("Rom", "Rom ", "Rom…", " Rom"))], rule="right_vs_wrong") == (
        [], {"none_wrong": 1},
    )  # fmt: skip


def test_edited_pairs_are_those_a_person_wrote(job_of, folder_of):
    own = Pair(ITALY.messages, {"role": "assistant", "content": "Rome"}, {"role": "assistant", "content": "Rom"},
               "general", rating=EDITED)  # fmt: skip
    chosen = replace(own, chosen={"role": "assistant", "content": "x"}, rating="better", id="")
    inputs = folder_of(prompts=[ITALY], responses=say(ITALY, *TEXTS), preferences=[own, chosen])
    job = job_of(SelectConfig.model_validate({"sft": "none", "pairs": "edited"}), inputs)
    run(job)
    assert [pair.id for pair in read_table(job.folder, "pairs")] == [own.id]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_stops_with_a_sentence(job_of, value):
    item = candidates(combined=(0.0, value, 1.0, 2.0))
    with pytest.raises(UserError, match=rf"the combined score of response {item.responses[1].id} is {value}"):
        rows_of(job_of, [item])
    with pytest.raises(UserError, match="the combined score"):
        pairs_of(job_of, [item])


def test_a_scorer_that_did_not_run_is_named(job_of):
    with pytest.raises(UserError, match="ranks by 'judge', but there are no such scores; there are combined, reward"):
        rows_of(job_of, [candidates()], score="judge")


def test_an_answer_without_a_score_cannot_win(job_of):
    item = candidates(combined=(0.1, None, -1.3, 2.0))
    rows, _ = rows_of(job_of, [item])
    assert texts_of(rows) == ["Ulm"]
    assert rows_of(job_of, [replace(item, scores={"combined": (None,) * 4})])[1] == {"no_score": 1}


SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6)


@given(SCORES, st.integers(0, 6))
def test_best_is_the_first_of_the_highest_among_the_first_k(scores, k):
    item = candidates(texts=[f"t{n}" for n in range(len(scores))], combined=scores, reward=scores)
    contest = open_contest(item, SelectConfig(k=k), lambda *parts: random.Random(0))
    looked_at = scores[: k or None]
    assert ROW_RULES["best"](contest, RowRule())[0] == [looked_at.index(max(looked_at))]
    assert set(contest.lost) | {looked_at.index(max(looked_at))} == set(range(len(scores)))


@given(SCORES, st.sampled_from(sorted(PAIR_RULES)), st.floats(0, 3), st.integers(0, 4))
def test_a_pair_never_ranks_equal_or_lower_scores_above(scores, rule, margin, n):
    item = candidates(texts=[f"t{n}" for n in range(len(scores))], combined=scores, reward=scores)
    contest = open_contest(item, SelectConfig(), lambda *parts: random.Random(0))
    fits = {"n": n} if rule in ("ranked_list", "right_vs_wrong") and n != 1 else {}
    fits |= {"min_margin": margin} if rule != "right_vs_wrong" else {}
    pairs, reason = PAIR_RULES[rule](contest, PairRule(rule=rule, **fits))
    assert bool(pairs) != bool(reason)
    for better, worse in pairs:
        assert scores[better] - scores[worse] >= margin and scores[better] > scores[worse]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sft": "top_n"}, "needs n"),
        ({"sft": "threshold"}, "needs least"),
        ({"sft": {"rule": "best", "least": 1.0}}, "only that rule reads it"),
        ({"sft": {"rule": "best", "n": 2}}, "one answer a prompt; leave n out"),
        ({"pairs": {"rule": "best_vs_worst", "n": 2}}, "does not read n"),
        ({"pairs": {"rule": "ranked_list", "n": 1}}, "2 or more"),
        ({"pairs": {"rule": "right_vs_wrong", "min_margin": 1}}, "does not look at scores"),
        ({"capabilities": {"math": {"sft": "bst"}}}, "best"),
    ],
)
def test_keys_that_do_not_fit_a_rule_are_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        SelectConfig.model_validate(given)


def test_short_forms_in_the_recipe():
    config = SelectConfig.model_validate({"sft": "verified", "pairs": "none"})
    assert config == SelectConfig(sft=RowRule(rule="verified"), pairs=None)
    assert (provides(config), needs_scores(config)) == (("rows",), False)
    assert needs_scores(SelectConfig.model_validate({"sft": "random"}))
    with pytest.raises(ValidationError, match="both none"):
        SelectConfig.model_validate({"sft": "none", "pairs": None})


def of_two_models(*given):
    """(model, text, score) in the order of the samples."""
    made = [Response(ITALY.id, i, text, "stop", 3, None, {"model": model}) for i, (model, text, _) in enumerate(given)]
    return gather([ITALY], made, scores_of(made, combined=[score for *_, score in given]))[0]


MIXED = (("a", "Rom", 3.0), ("a", "Ulm", -2.0), ("b", "Bonn", -1.0), ("b", "Rom!", 1.0), ("b", "Genf", 2.0))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rule": "best_vs_worst"}, {("Rom", "Bonn")}),
        ({"rule": "best_vs_worst", "min_margin": 4.5}, set()),
        ({"rule": "ranked_list", "n": 5}, {("Rom", "Genf"), ("Rom", "Rom!"), ("Rom", "Bonn"), ("Genf", "Ulm"),
                                           ("Rom!", "Ulm"), ("Bonn", "Ulm")}),
        ({"rule": "right_vs_wrong", "n": 9}, {("Rom", "Bonn"), ("Rom", "Rom!"), ("Rom", "Genf")}),
    ],
)  # fmt: skip
def test_pairs_of_two_models(job_of, rule, expected):
    pairs, _ = pairs_of(job_of, [of_two_models(*MIXED)], models="different", **rule)
    assert {(pair.chosen["content"], pair.rejected["content"]) for pair in pairs} == expected


@pytest.mark.parametrize("rule", ["best_vs_worst", "best_vs_random", "ranked_list", "right_vs_wrong"])
def test_a_prompt_that_one_model_answered_gives_no_pair_of_two(job_of, rule):
    item = of_two_models(*(("a", text, score) for _, text, score in MIXED))
    pairs, lost = pairs_of(job_of, [item], rule=rule, models="different")
    assert (pairs, lost) == ([], {"one_model": 1})
    assert len(pairs_of(job_of, [item], rule=rule)[0]) >= 1
    with pytest.raises(ValidationError, match="takes the pairs as people made them"):
        PairRule(rule="edited", models="different")
