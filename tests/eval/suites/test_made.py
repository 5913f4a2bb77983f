"""Suites that are made: how many, of what, and that each gold answer has scored 1.0 (or making would have failed)."""

from collections import Counter
from itertools import pairwise

import pytest

from eval.scorers.ifeval import CHECKERS
from eval.suites.making import read_answering
from posttrain.chat import Renderer


def categories(prompts):
    return Counter(prompt.made_by["category"] for prompt in prompts)


@pytest.mark.parametrize("suite", ["tool_use", "dialogs", "multilingual", "instructions", "math", "choices", "code"])
def test_a_made_suite_is_the_same_each_time_and_another_with_another_seed(make, suite):
    _, one = make(suite, name="one", n=9)
    _, again = make(suite, name="again", n=9)
    _, other = make(suite, name="other", n=9, seed=1)
    assert len(one) == 9
    assert [prompt.id for prompt in one] == [prompt.id for prompt in again]
    assert {prompt.capability for prompt in one} == {"one"}
    assert suite == "code" or not {prompt.id for prompt in one} & {prompt.id for prompt in other}


def test_tool_use_shares_its_prompts_out_over_bfcls_categories(make):
    _, prompts = make("tool_use", n=60)
    assert categories(prompts) == dict.fromkeys(
        ("simple", "multiple", "parallel", "parallel_multiple", "irrelevance", "relevance"), 10
    )
    wanted = {prompt.made_by["category"]: len(prompt.check.args.get("calls", "?")) for prompt in prompts}
    assert wanted == {
        "simple": 1, "multiple": 1, "parallel": 2, "parallel_multiple": 2, "irrelevance": 0, "relevance": 1,
    }  # fmt: skip
    offered = {prompt.made_by["category"]: len(prompt.tools) for prompt in prompts}
    assert (offered["simple"], offered["multiple"], offered["parallel_multiple"]) == (1, 3, 3)


def test_instructions_have_all_25_kinds(make):
    _, prompts = make("instructions", n=50)
    assert len(CHECKERS) == 25
    assert categories(prompts) == dict.fromkeys(CHECKERS, 2)


def test_the_same_problem_in_eight_languages_is_one_cluster(make):
    _, prompts = make("multilingual", n=24)
    clusters = Counter(prompt.made_by["cluster"] for prompt in prompts)
    assert set(clusters.values()) == {8}
    assert Counter(prompt.language for prompt in prompts) == dict.fromkeys("en de fr it pt hi es th".split(), 3)
    one = next(iter(clusters))
    assert len({p.check.args["answer"] for p in prompts if p.made_by["cluster"] == one}) == 1


def test_long_context_meets_every_length_within_two_percent(make, tiny_model):
    _, prompts = make("long_context", n=14, lengths=[768, 2048])
    renderer = Renderer.from_pretrained(tiny_model)
    assert len(categories(prompts)) == 7
    for prompt in prompts:
        tokens, wanted = len(renderer.prompt(prompt.messages)), prompt.made_by["length"]
        assert tokens == prompt.made_by["tokens"]
        assert 0.98 * wanted <= tokens <= wanted, prompt.made_by
        answers = prompt.check.args["answers"]
        assert all(answer in prompt.messages[0]["content"] for answer in answers)


def test_a_single_needle_lies_at_its_depth(make):
    _, prompts = make("long_context", n=5, tasks=["needle"], lengths=[1024], depths=5)
    found = {}
    for prompt in prompts:
        text = prompt.messages[0]["content"]
        found[prompt.made_by["depth"]] = text.index(prompt.check.args["answers"][0]) / len(text)
    assert sorted(found) == [0, 0.25, 0.5, 0.75, 1]
    assert all(abs(place - depth) < 0.12 for depth, place in found.items()), found


def test_common_words_are_more_common_than_all_others(make):
    _, prompts = make("long_context", n=2, tasks=["common_words", "frequent_words"], lengths=[2048])
    for prompt in prompts:
        counts = Counter(prompt.messages[0]["content"].split("\n")[1].split())
        answers = prompt.check.args["answers"]
        others = [n for word, n in counts.items() if word.isalpha() and word not in answers]
        assert min(counts[answer] for answer in answers) > max(others)


def test_a_variable_chain_has_one_value_and_four_hops(make):
    _, (prompt,) = make("long_context", n=1, tasks=["variable_tracking"], lengths=[1024])
    text, names = prompt.messages[0]["content"], prompt.check.args["answers"]
    places = [text.index(f"VAR {names[0]} = ")]
    places += [text.index(f"VAR {name} = VAR {before}.") for before, name in pairwise(names)]
    assert len(places) == 5
    assert places == sorted(places)


def test_how_a_suite_is_answered_is_kept_beside_it(make):
    job, _ = make("code", n=3, samples=4, temperature=0.8, passes=[1, 2, 4], max_new_tokens=99)
    answering = read_answering(job.folder)
    assert (answering.kind, answering.by, answering.n, answering.temperature) == ("code", "answer", 4, 0.8)
    assert (answering.passes, answering.max_new_tokens) == ((1, 2, 4), 99)


def test_pass_at_k_needs_as_many_samples(make):
    with pytest.raises(ValueError, match="pass@10 needs as many samples; there are 5"):
        make("code", samples=5, temperature=1.0, passes=[10])
