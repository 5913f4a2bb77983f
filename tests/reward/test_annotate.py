"""Pairs from the verifier, right against wrong, and from a judge, on a share of the prompts."""

from dataclasses import replace

import pytest

from posttrain.data.rows import Prompt
from posttrain.data.tables import read_table
from posttrain.engines.openai import ChatReader
from posttrain.engines.protocol import Completion, Engine
from posttrain.errors import UserError
from reward import annotate as annotate_stage
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


def test_all_pairs_where_none_are_asked_for_in_number(job_of, folder_of):
    prompt = ask("Capital of Italy?")
    responses = say(prompt, "Rom", *(f"no {number}" for number in range(9)))
    pairs, _ = annotate(job_of, folder_of, [prompt], responses, share=1, pairs_per_prompt=0)
    assert len(pairs) == 9


class ScriptedEngine(Engine):
    """An engine whose one model answers by a function of the conversation."""

    renderer = ChatReader()

    def __init__(self, says):
        self.says = says

    def generate(self, requests, sampling):
        for request in requests:
            text = self.says(request.messages[-1]["content"])
            yield [Completion(request.id, 0, text, (), None, "stop", 0)]

    def close(self):
        pass


def judged(job_of, folder_of, monkeypatch, says, prompts, responses, **config):
    monkeypatch.setattr(annotate_stage, "open_engine", lambda model, machine: ScriptedEngine(says))
    inputs = {**folder_of(prompts=prompts, responses=responses), "judge": "a judge"}
    job = job_of(AnnotateConfig(by="judge", share=1, **config), inputs)
    run(job)
    return read_table(job.folder, "preferences"), job


def test_a_judge_ranks_different_answers_and_its_ties_are_no_pair(job_of, folder_of, monkeypatch):
    def says(text):
        first, second = (text.split(f"[answer {side}]\n")[1].split("\n")[0] for side in "AB")
        if "Rom" not in (first, second):
            return "Verdict: A better"
        return f"Verdict: {'A' if first == 'Rom' else 'B'} slightly better"

    prompt = ask("Capital of Italy?")
    pairs, job = judged(
        job_of, folder_of, monkeypatch, says, [prompt], say(prompt, "Rom", "Ulm", "Bonn", "Rom", "Köln…"),
        pairs_per_prompt=0,
    )  # fmt: skip
    found = sorted((p.chosen["content"], p.rejected["content"], p.rating) for p in pairs)
    assert found == [("Rom", "Bonn", "slightly_better"), ("Rom", "Ulm", "slightly_better")]
    assert job.summary["drops"] == {"tie": 1}
    assert job.summary["judge"]["order_decides"] == 1
    assert job.summary["judge"]["model"] == "teacher"


def test_answers_of_two_models_are_compared_across_models(job_of, folder_of, monkeypatch):
    prompt = ask("Capital of Italy?")
    responses = [
        replace(r, made_by={"model": name}, id="")
        for r, name in zip(say(prompt, "Rom", "Ulm", "Bonn", "Köln"), ["one", "one", "two", "two"], strict=True)
    ]
    seen = []

    def says(text):
        first, second = (text.split(f"[answer {side}]\n")[1].split("\n")[0] for side in "AB")
        seen.append({first, second})
        return f"Verdict: {'A' if first in ('Rom', 'Ulm') else 'B'} better"

    pairs, _ = judged(job_of, folder_of, monkeypatch, says, [prompt], responses, pairs_per_prompt=0)
    assert len(pairs) == 4
    assert {"Rom", "Ulm"} not in seen and {"Bonn", "Köln"} not in seen


def test_a_model_that_is_no_judge_stops_with_a_sentence(job_of, folder_of, tiny_model):
    prompt = ask("Capital of Italy?")
    inputs = {**folder_of(prompts=[prompt], responses=say(prompt, "Rom", "Ulm")), "judge": tiny_model}
    with pytest.raises(UserError, match="none of the judge's first 2 answers ends with a verdict"):
        run(job_of(AnnotateConfig(by="judge", share=1, max_new_tokens=8), inputs))
