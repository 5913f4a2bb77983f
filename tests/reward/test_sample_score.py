"""Sampling and scoring with random tiny models: tables, resumption after a kill, equality with plain computation."""

import math
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from posttrain.chat import Renderer
from posttrain.data.rows import Pair, Prompt, Response, gather
from posttrain.data.tables import read_table
from posttrain.errors import Interrupted, UserError
from reward import sample, score
from reward.sample_spec import SampleConfig
from reward.score_spec import ScoreConfig
from reward.scorers import combine
from tests.reward.conftest import ask, call, say

PROMPTS = [ask(f"{number} cats on the mat?" * (number + 1)) for number in range(5)]
SAMPLING = SampleConfig(k=3, temperature=1.0, max_new_tokens=12, chunk=2)


class StopAfter:
    """Asks the run to stop at its `count`-th question."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left == 0


def table_bytes(job, table):
    return (job.folder / f"{table}.parquet").read_bytes()


@pytest.fixture
def sampling_inputs(folder_of, tiny_model):
    return {**folder_of(prompts=[*PROMPTS, PROMPTS[0]]), "model": [tiny_model]}


def test_sample_writes_k_answers_for_each_prompt(job_of, sampling_inputs):
    job = job_of(SAMPLING, sampling_inputs)
    sample.run(job)
    responses = read_table(job.folder, "responses")
    assert [(r.prompt_id, r.index) for r in responses] == [
        (i, k) for i in sorted(p.id for p in PROMPTS) for k in range(3)
    ]
    assert len({r.text for r in responses}) > 12
    assert all(r.tokens <= 12 and r.logprob < 0 and r.made_by["temperature"] == 1.0 for r in responses)
    assert all(r.count == 1 and r.steps == () for r in responses)
    assert job.rows == {"responses": 15}
    assert job.tokens == sum(r.tokens for r in responses)
    assert job.summary["drops"] == {"prompt_too_long": 0, "refused": 0}


def test_a_stopped_sampling_goes_on_where_it_was_and_ends_the_same(job_of, sampling_inputs):
    whole = job_of(SAMPLING, sampling_inputs, "whole")
    sample.run(whole)
    with pytest.raises(Interrupted):
        sample.run(job_of(SAMPLING, sampling_inputs, "stopped", stopping=StopAfter(2)))
    events = []
    resumed = job_of(SAMPLING, sampling_inputs, "stopped", report=events.append)
    kept = set(resumed.journal("responses").chunks)
    assert len(kept) == 2
    sample.run(resumed)
    read = [(r.prompt_id, r.index, r.text, r.logprob) for r in read_table(resumed.folder, "responses")]
    assert read == [(r.prompt_id, r.index, r.text, r.logprob) for r in read_table(whole.folder, "responses")]
    assert [event["done"] for event in events] == [12, 15]


def test_prompts_without_room_are_dropped_and_counted(job_of, folder_of, tiny_model):
    long = ask("42 " * 1500)
    job = job_of(SAMPLING, {**folder_of(prompts=[PROMPTS[0], long]), "model": [tiny_model]})
    sample.run(job)
    assert {r.prompt_id for r in read_table(job.folder, "responses")} == {PROMPTS[0].id}
    assert job.summary["drops"] == {"prompt_too_long": 1, "refused": 0}
    only_long = {**job.inputs, "prompts": folder_of_one(job_of, long)}
    with pytest.raises(UserError, match=r"none of the 1 prompts got an answer \(prompt too long 1\) of 12 new tokens"):
        sample.run(job_of(SAMPLING, only_long, "none"))


def folder_of_one(job_of, prompt):
    from posttrain.data.tables import write_table

    folder = job_of(SAMPLING, {}, "one").folder
    write_table(folder, "prompts", [prompt])
    return folder


def test_two_models_answer_every_prompt_and_each_answer_says_whose_it_is(job_of, folder_of, tiny_model, tmp_path):
    other = shutil.copytree(tiny_model, tmp_path / "other")
    config = SAMPLING.model_copy(update={"model": ("previous", "other"), "k": 2})
    job = job_of(config, {**folder_of(prompts=PROMPTS), "model": [tiny_model, other]})
    sample.run(job)
    found = read_table(job.folder, "responses")
    assert [(r.index, r.made_by["model"]) for r in found[:4]] == [
        (0, "previous"), (1, "previous"), (2, "other"), (3, "other"),
    ]  # fmt: skip
    assert len({r.id for r in found}) == 4 * len(PROMPTS)
    assert len({r.text for r in found}) > 3 * len(PROMPTS)
    assert job.summary["by_model"].keys() == {"previous", "other"}


def test_a_system_prompt_steers_but_is_no_part_of_the_prompt(job_of, folder_of, tiny_model):
    own = Prompt(({"role": "system", "content": "mine"}, {"role": "user", "content": "42?"}), "general")
    inputs = {**folder_of(prompts=[PROMPTS[0], own]), "model": [tiny_model]}
    greedy = SAMPLING.model_copy(update={"k": 1, "temperature": 0.0})
    texts = {}
    for name, system in [
        ("plain", {}),
        ("steered", {"default": "the cat sat on 42 birds " * 9}),
        ("other", {"math": "x"}),
    ]:
        job = job_of(greedy.model_copy(update={"system": system}), inputs, name)
        sample.run(job)
        texts[name] = {r.prompt_id: r.text for r in read_table(job.folder, "responses")}
    assert texts["plain"].keys() == texts["steered"].keys() == {PROMPTS[0].id, own.id}
    assert texts["steered"][PROMPTS[0].id] != texts["plain"][PROMPTS[0].id]
    assert texts["steered"][own.id] == texts["plain"][own.id]
    assert texts["other"] == texts["plain"]


def test_a_range_of_temperatures_gives_each_prompt_its_own(job_of, folder_of, tiny_model):
    config = SAMPLING.model_copy(update={"temperature": (0.2, 1.0)})
    job = job_of(config, {**folder_of(prompts=PROMPTS), "model": [tiny_model]})
    sample.run(job)
    heat = {}
    for response in read_table(job.folder, "responses"):
        heat.setdefault(response.prompt_id, set()).add(response.made_by["temperature"])
    assert all(len(values) == 1 and 0.2 < min(values) < 1.0 for values in heat.values())
    assert len(set.union(*heat.values())) == len(PROMPTS)


def test_repeated_answers_are_stored_once_with_their_count(job_of, sampling_inputs):
    job = job_of(SAMPLING.model_copy(update={"temperature": 0.0}), sampling_inputs)
    sample.run(job)
    responses = read_table(job.folder, "responses")
    assert [(r.prompt_id, r.index, r.count) for r in responses] == [(i, 0, 3) for i in sorted(p.id for p in PROMPTS)]
    assert job.rows == {"responses": 5}
    assert job.summary["answers"] == 15 and job.summary["distinct"] == pytest.approx(1 / 3)
    assert job.summary["told"] == ["15 answers, 5 of them different"]
    assert sum(job.summary["finish"].values()) == 15


def test_an_answer_that_was_cut_is_another_than_one_that_ended_there():
    prompt = PROMPTS[0]
    said = [("a", "stop"), ("b", "stop"), ("a", "length"), ("a", "stop")]
    made = [
        Response(prompt.id, i, text, finish, 3, -1.0, {"model": "m", "seed": i})
        for i, (text, finish) in enumerate(said)
    ]
    found = sample.counted(made)
    assert [(r.id, r.index, r.count, r.finish) for r in found] == [
        (made[0].id, 0, 2, "stop"), (made[1].id, 1, 1, "stop"), (made[2].id, 2, 1, "length"),
    ]  # fmt: skip


def scored(job_of, folder_of, responses, reward_model, name):
    config = ScoreConfig(reward=1.0, votes=0.5, verifier=0.25, chunk=2)
    tables = folder_of(prompts=PROMPTS, responses=responses)
    job = job_of(config, {**tables, "reward_model": reward_model}, name)
    score.run(job)
    for folder in tables.values():
        shutil.rmtree(folder)
    return job, {(s.response_id, s.scorer): s.value for s in read_table(job.folder, "scores")}


def test_counted_answers_score_what_single_ones_do(job_of, folder_of, tiny_reward_model):
    """Every scorer, the combination and the summary are those of all samples written out."""
    single = [response for prompt in PROMPTS for response in say(prompt, *TEXTS, "Rom", "Ulm")]
    job, expected = scored(job_of, folder_of, single, tiny_reward_model, "single")
    counted = sample.counted(single)
    assert len(counted) == 4 * len(PROMPTS)
    other, found = scored(job_of, folder_of, counted, tiny_reward_model, "counted")
    assert found == {key: value for key, value in expected.items() if key[0] in {r.id for r in counted}}
    assert len(found) == 4 * 4 * len(PROMPTS)
    for part in ("best_of_k", "best_of_n", "prompts", "drops"):
        assert other.summary[part] == job.summary[part]
    assert other.tokens == job.tokens


def test_an_empty_pool_is_refused(job_of, folder_of, tiny_model):
    with pytest.raises(UserError, match="holds no prompts"):
        sample.run(job_of(SAMPLING, {**folder_of(prompts=[]), "model": [tiny_model]}))


TEXTS = ("Rom", "Ulm", "Rom", call("f", a=[1, 2]), "Rom is a much longer answer…")


@pytest.fixture
def scoring_inputs(folder_of, tiny_reward_model):
    responses = [response for prompt in PROMPTS for response in say(prompt, *TEXTS)]
    pair = Pair(PROMPTS[0].messages, {"role": "assistant", "content": "Rom"}, {"role": "assistant", "content": "Ulm"},
                "general", prompt_id=PROMPTS[0].id)  # fmt: skip
    return {**folder_of(prompts=PROMPTS, responses=responses, preferences=[pair]), "reward_model": tiny_reward_model}


def test_rewards_are_those_of_the_whole_conversation_read_by_transformers(job_of, scoring_inputs, tiny_reward_model):
    job = job_of(ScoreConfig(reward=1.0, votes=1.5, chunk=2), scoring_inputs)
    score.run(job)
    responses = read_table(scoring_inputs["responses"], "responses")
    found = gather(PROMPTS, responses, read_table(job.folder, "scores"))
    renderer = Renderer.from_pretrained(tiny_reward_model)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model, num_labels=1, dtype=torch.float32)
    for item in found:
        if item.prompt.id == PROMPTS[0].id:
            assert set(item.scores["combined"]) == {None}
            continue
        expected = [
            plain(
                torch.tensor([renderer.conversation([*item.prompt.messages, renderer.message(text)]).ids])
            ).logits.item()
            for text in TEXTS
        ]
        assert item.scores["reward"] == pytest.approx(expected, abs=1e-5)
        assert item.scores["reward"][0] == item.scores["reward"][2]
        assert item.scores["votes"] == pytest.approx([math.log(2), 0, math.log(2), 0, 0])
        wanted = combine(item.scores, {"reward": 1.0, "votes": 1.5}, [1] * 5, {})
        assert item.scores["combined"] == pytest.approx(wanted)
    assert "verifier" not in found[0].scores
    assert job.summary["prompts"] == {"scored": 4, "annotated_left_out": 1}
    assert job.rows == {"scores": 4 * 5 * 3}


def test_best_of_k_is_measured_by_the_verifier(job_of, scoring_inputs):
    job = job_of(ScoreConfig(reward=0.0, votes=1.0), {k: v for k, v in scoring_inputs.items() if k != "reward_model"})
    score.run(job)
    assert job.summary["best_of_k"]["all"] == {
        "n": 4,
        "mean": pytest.approx(0.4),
        "any": 1.0,
        "votes": 1.0,
        "combined": 1.0,
    }
    assert set(job.summary["best_of_k"]) == {"all", "general"}


def test_two_processes_score_as_one_does_bit_for_bit(job_of, scoring_inputs):
    config = ScoreConfig(verifier=0.5, chunk=2)
    tables = []
    for workers in (1, 2):
        job = job_of(config, scoring_inputs, f"workers-{workers}")
        job.machine = job.machine.model_copy(update={"workers": workers})
        score.run(job)
        tables.append(table_bytes(job, "scores"))
    assert tables[0] == tables[1]


def test_a_stopped_scoring_ends_bit_for_bit_the_same(job_of, scoring_inputs):
    config = ScoreConfig(verifier=0.5, chunk=1)
    whole = job_of(config, scoring_inputs, "whole")
    score.run(whole)
    with pytest.raises(Interrupted):
        score.run(job_of(config, scoring_inputs, "stopped", stopping=StopAfter(2)))
    resumed = job_of(config, scoring_inputs, "stopped")
    assert len(resumed.journal("scores").chunks) == 2
    score.run(resumed)
    assert table_bytes(resumed, "scores") == table_bytes(whole, "scores")
    assert resumed.tokens == whole.tokens


def test_nothing_left_to_score_is_said(job_of, scoring_inputs, folder_of):
    pairs = [
        Pair(
            p.messages,
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
            "general",
            prompt_id=p.id,
        )
        for p in PROMPTS
    ]
    from posttrain.data.tables import write_table

    write_table(scoring_inputs["preferences"], "preferences", pairs)
    with pytest.raises(UserError, match="nothing to score: 5 of 5 prompts"):
        score.run(job_of(ScoreConfig(), scoring_inputs))


def test_other_reward_models_and_filters_join_in(job_of, scoring_inputs, tiny_reward_model):
    config = ScoreConfig(reward=1.0, models={"second": 0.5}, require={"verifier": 1.0})
    job = job_of(config, {**scoring_inputs, "models": [tiny_reward_model]})
    score.run(job)
    responses = read_table(scoring_inputs["responses"], "responses")
    for item in gather(PROMPTS, responses, read_table(job.folder, "scores")):
        if item.prompt.id != PROMPTS[0].id:
            assert item.scores["second"] == item.scores["reward"]
            assert [value is None for value in item.scores["combined"]] == [False, True, False, True, True]
    assert job.summary["drops"] == {"too_long": 0, "filtered_answers": 4 * 3}
    first, last = job.summary["best_of_n"]["reward"][0], job.summary["best_of_n"]["reward"][-1]
    assert (first["n"], last["n"], first["true"]) == (1, 4, pytest.approx(0.4))
    assert first["reward"] < last["reward"]


def test_what_the_reward_model_has_no_room_for_is_left_out_and_counted(job_of, folder_of, tiny_reward_model):
    long = ask("42 " * 2000)
    responses = [answer for prompt in (PROMPTS[0], long) for answer in say(prompt, "Rom", "Ulm")]
    inputs = {**folder_of(prompts=[PROMPTS[0], long], responses=responses), "reward_model": tiny_reward_model}
    job = job_of(ScoreConfig(), inputs)
    score.run(job)
    assert job.summary["prompts"] == {"scored": 1, "annotated_left_out": 0}
    assert job.summary["drops"]["too_long"] == 1
    assert {row.response_id for row in read_table(job.folder, "scores")} == {r.id for r in responses[:2]}


def test_scores_that_are_no_number_stop_the_stage(job_of, scoring_inputs, tiny_reward_model, tmp_path):
    folder = tmp_path / "broken"
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model, num_labels=1)
    model.score.weight.data[:] = float("nan")
    model.save_pretrained(folder)
    Renderer.from_pretrained(tiny_reward_model).tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="such scores cannot be compared"):
        score.run(job_of(ScoreConfig(), {**scoring_inputs, "reward_model": folder}))


def test_scores_of_people_come_from_a_file(job_of, scoring_inputs, tmp_path):
    responses = read_table(scoring_inputs["responses"], "responses")
    path = tmp_path / "people.csv"
    path.write_text("response_id,value\n" + "".join(f"{r.id},{r.index}\n" for r in responses if r.index < 3))
    job = job_of(ScoreConfig(reward=0.0, file="people.csv"), {**scoring_inputs, "file": path})
    job.inputs.pop("reward_model")
    score.run(job)
    item = gather(PROMPTS, responses, read_table(job.folder, "scores"))[-1]
    assert item.scores["file"] == (0.0, 1.0, 2.0, None, None)
    path.write_text("response_id,value\nx,high\n")
    with pytest.raises(UserError, match=r'people\.csv:2: a line needs `response_id`, .* got \{"response_id": "x"'):
        score.run(job_of(ScoreConfig(reward=0.0, file="people.csv"), job.inputs, "bad"))
    for bad in (f"{responses[0].id},nan\n", f"{responses[0].id},1\n{responses[0].id},2\n"):
        path.write_text(f"response_id,value\n{bad}")
        with pytest.raises(UserError, match=r"people\.csv:[23]: a line needs `response_id`, each once, and `value`"):
            score.run(job_of(ScoreConfig(reward=0.0, file="people.csv"), job.inputs, "twice"))
    path.write_text("response_id,value\nx,1\n")
    with pytest.raises(UserError, match=r"people\.csv names none of the answers"):
        score.run(job_of(ScoreConfig(reward=0.0, file="people.csv"), job.inputs, "none"))


def test_a_recipe_that_scores_nothing_or_requires_what_nobody_scores_is_refused():
    with pytest.raises(ValueError, match="every weight is 0"):
        ScoreConfig(reward=0.0)
    with pytest.raises(ValueError, match="require: judge does not score here"):
        ScoreConfig(require={"judge": 5.0})
    with pytest.raises(ValueError, match="models: votes is a scorer's own name"):
        ScoreConfig(models={"votes": 1.0})
