"""Which candidates become rows and pairs, with every loss counted."""

import pytest
from pydantic import ValidationError

from posttrain.data.rows import Prompt, gather
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from reward.select import run, select_pairs, select_rows
from reward.select_spec import PairRule, RowRule, SelectConfig, needs_scores, provides
from tests.reward.conftest import ask, call, say, scores_of

ITALY = ask("Capital of Italy?")
TEXTS = ("Ulm", "Rom", "Bonn", "Rom is…")


def candidates(prompt=ITALY, texts=TEXTS, combined=(0.1, 1.2, -1.3, 2.0), reward=(1.0, 2.0, 3.0, 9.0)):
    responses = say(prompt, *texts)
    return gather([prompt], responses, scores_of(responses, combined=combined, reward=reward))[0]


def rows_of(job_of, pool, **rule):
    return select_rows(job_of(SelectConfig(), {}), pool, RowRule(**rule))


def pairs_of(job_of, pool, **rule):
    return select_pairs(job_of(SelectConfig(), {}), pool, PairRule(**rule))


def test_best_is_the_highest_combined_answer_that_was_not_cut(job_of):
    (row,), lost = rows_of(job_of, [candidates()])
    assert row.messages == (*ITALY.messages, {"role": "assistant", "content": "Rom"})
    assert (row.reward, row.capability, row.parents[0]) == (2.0, "general", ITALY.id)
    assert row.made_by == {"stage": "stage", "round": 1, "rule": "best", "model": "base"}
    assert lost == {}


def test_a_call_becomes_a_tool_call_again(job_of):
    (row,), _ = rows_of(job_of, [candidates(texts=(call("f", a=1), "x", "y", "z"), combined=(3, 2, 1, 0))])
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
    responses = candidates(texts=spelt, combined=(1, -1), reward=(0, 0))
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
    assert job.rows == {"rows": 1, "pairs": 1}
    assert job.summary["drops"] == {"prompts": {"not_scored": 1}, "rows": {}, "pairs": {}}


def test_random_works_without_scores(job_of, folder_of):
    job = job_of(SelectConfig(sft="random", pairs=None), folder_of(prompts=[ITALY], responses=say(ITALY, *TEXTS)))
    run(job)
    assert job.rows == {"rows": 1}


def test_an_empty_selection_says_why(job_of, folder_of):
    prompt = Prompt(({"role": "user", "content": "x"},), "general")
    inputs = folder_of(prompts=[prompt], responses=say(prompt, "a…", "b…"))
    with pytest.raises(UserError, match=r"no rows \(all cut 1\)"):
        run(job_of(SelectConfig(sft="random", pairs=None), inputs))


def test_short_forms_in_the_recipe():
    config = SelectConfig.model_validate({"sft": "verified", "pairs": "none"})
    assert config == SelectConfig(sft=RowRule(rule="verified"), pairs=None)
    assert (provides(config), needs_scores(config)) == (("rows",), False)
    assert needs_scores(SelectConfig.model_validate({"sft": "random"}))
    with pytest.raises(ValidationError, match="both none"):
        SelectConfig.model_validate({"sft": "none", "pairs": None})
