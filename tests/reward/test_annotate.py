"""Pairs from the verifier: right against wrong, on a share of the prompts."""

import pytest

from posttrain.data.rows import Prompt
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from reward.annotate import run
from reward.annotate_spec import AnnotateConfig
from tests.reward.conftest import ask, say


def annotate(job_of, folder_of, prompts, responses, **config):
    job = job_of(AnnotateConfig(**config), folder_of(prompts=prompts, responses=responses))
    run(job)
    return read_table(job.folder, "preferences"), job


def test_right_answers_stand_against_wrong_ones_each_message_once(job_of, folder_of):
    prompt = ask("Capital of Italy?")
    pairs, job = annotate(job_of, folder_of, [prompt], say(prompt, "Rom", "Ulm", "Rom", "Ulm ", "Bonn"), share=1)
    assert sorted((p.chosen["content"], p.rejected["content"]) for p in pairs) == [("Rom", "Bonn"), ("Rom", "Ulm")]
    assert {p.prompt_id for p in pairs} == {prompt.id}
    assert all(p.prompt == prompt.messages and p.parents[0] == prompt.id for p in pairs)
    assert job.rows == {"preferences": 2}
    assert job.summary["prompts"] == {"pool": 1, "share": 1, "with_pairs": 1}


def test_pairs_a_prompt_are_capped_and_drawn_by_seed(job_of, folder_of):
    prompt = ask("Capital of Italy?")
    responses = say(prompt, "Rom", *(f"no {number}" for number in range(9)))
    pairs, _ = annotate(job_of, folder_of, [prompt], responses, share=1, pairs_per_prompt=3)
    assert len({p.rejected["content"] for p in pairs}) == 3


def test_prompts_without_a_pair_are_counted_by_reason(job_of, folder_of):
    mixed, right, wrong = ask("a"), ask("b"), ask("c")
    unchecked = Prompt(({"role": "user", "content": "d"},), "general")
    responses = [
        *say(mixed, "Rom", "Ulm"), *say(right, "Rom", "Rom"), *say(wrong, "Ulm", "Bonn"), *say(unchecked, "Rom", "Ulm"),
    ]  # fmt: skip
    pairs, job = annotate(job_of, folder_of, [mixed, right, wrong, unchecked], responses, share=1)
    assert [p.prompt_id for p in pairs] == [mixed.id]
    assert job.summary["drops"] == {"all_right": 1, "all_wrong": 1, "no_check": 1}


def test_the_share_is_of_prompts_and_the_same_each_time(job_of, folder_of):
    prompts = [ask(f"question {number}") for number in range(400)]
    responses = [response for prompt in prompts for response in say(prompt, "Rom", "Ulm")]
    pairs, job = annotate(job_of, folder_of, prompts, responses, share=0.3)
    assert 90 <= len(pairs) <= 150
    again = job_of(job.config, job.inputs, "again")
    run(again)
    assert read_table(again.folder, "preferences")[0].id == pairs[0].id


def test_no_pair_at_all_is_said_with_its_reasons(job_of, folder_of):
    prompt = ask("a")
    with pytest.raises(UserError, match=r"no pair from 1 of 1 prompts \(all wrong 1\)"):
        annotate(job_of, folder_of, [prompt], say(prompt, "Ulm", "Bonn"), share=1)
