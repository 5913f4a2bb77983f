"""Rewards over a shared prompt equal those of separate rows by transformers, and what does not is refused."""

import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from posttrain.engines.lists import AnswerList
from posttrain.engines.loading import Loaded, load_model
from posttrain.engines.scoring import answer_list, check_rewards, load_scorer, refuse_nan, rewards, room
from posttrain.errors import UserError
from posttrain.machine import Machine

MACHINE = Machine(device="cpu", threads=1)
PROMPTS = ["What is 42?", "Wie ist das Wetter in München? " * 4, "the cat " * 20]
ANSWERS = [["a", "a much longer answer about 42 birds", ""], ["Rom"], ["no", "yes yes yes"]]


def as_messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def lists_of(loaded):
    users = [[{"role": "user", "content": text}] for text in PROMPTS]
    return [answer_list(loaded.renderer, user, (), as_messages(own)) for user, own in zip(users, ANSWERS, strict=True)]


def test_rewards_equal_separate_rows(tiny_reward_model):
    loaded = load_scorer(tiny_reward_model, MACHINE)
    lists = lists_of(loaded)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model, num_labels=1, dtype=torch.float32)
    expected = [[plain(torch.tensor([[*item.prompt, *tail]])).logits.item() for tail in item.answers] for item in lists]
    for batch_tokens in (1, 300, 100_000):
        found = rewards(loaded, lists, batch_tokens)
        assert [len(own) for own in found] == [3, 1, 2]
        for got, want in zip(found, expected, strict=True):
            assert got == pytest.approx(want, abs=1e-5)
    assert len({round(value, 4) for own in expected for value in own}) == 6


def test_the_reward_is_read_at_the_end_of_turn(tiny_reward_model):
    loaded = load_scorer(tiny_reward_model, MACHINE)
    item = answer_list(loaded.renderer, [{"role": "user", "content": "x"}], (), as_messages(["a", "b c"]))
    assert [tail[-1] for tail in item.answers] == [loaded.renderer.eot_id] * 2
    assert room(loaded) == 2048


def test_the_check_passes_a_causal_model_and_names_what_is_wrong(tiny_reward_model):
    loaded = load_scorer(tiny_reward_model, MACHINE)
    lists = lists_of(loaded)
    check_rewards(loaded, lists, "reward")
    twice = [AnswerList([loaded.renderer.tokenizer.bos_token_id, *item.prompt], item.answers) for item in lists]
    with pytest.raises(UserError, match="reward is to read rows with 2 BOS tokens"):
        check_rewards(loaded, twice, "reward")
    with pytest.raises(UserError, match="not at an end of turn"):
        check_rewards(loaded, [AnswerList(item.prompt, [[5, 6]]) for item in lists], "reward")


def test_the_check_refuses_scores_that_depend_on_padding(tiny_reward_model):
    """A model that is told the end of turn pads: transformers then reads the token before it."""
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    loaded.model.config.pad_token_id = loaded.renderer.eot_id
    with pytest.raises(UserError, match=r"reward gives a row of \d+ tokens -?\d+\.\d{4} alone and -?\d+\.\d{4} in one"):
        check_rewards(loaded, lists_of(loaded), "reward")


def test_the_check_refuses_a_model_that_reads_both_ways(tiny_reward_model):
    """Attention that looks ahead sees padding, and answers that a shared prompt never saw."""
    loaded = load_scorer(tiny_reward_model, MACHINE)
    loaded.model.base_model.register_forward_pre_hook(
        lambda module, args, options: (args, {**options, "attention_mask": _everything(args, options)}),
        with_kwargs=True,
    )
    with pytest.raises(UserError, match="such scores cannot be compared"):
        check_rewards(loaded, lists_of(loaded), "reward")


def _everything(args, options):
    """A mask in which every token sees every other one, those after it too."""
    ids = args[0] if args else options["input_ids"]
    cache = options.get("past_key_values")
    keys = ids.shape[1] + (cache.get_seq_length() if cache is not None else 0)
    return torch.ones(ids.shape[0], 1, ids.shape[1], keys, dtype=torch.bool)


def test_an_encoder_is_refused_by_its_name(tiny_reward_model, tmp_path):
    folder = shutil.copytree(tiny_reward_model, tmp_path / "bert")
    config = BertConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(UserError, match="is a BertForSequenceClassification; name a reward model with a causal"):
        load_scorer(folder, MACHINE)


def test_a_score_that_is_no_number_is_refused():
    refuse_nan([1.0, -2.0], "reward", "p1")
    with pytest.raises(UserError, match="reward gave an answer of prompt p1 a score that is no number"):
        refuse_nan([1.0, float("nan")], "reward", "p1")


def test_bfloat16_passes_its_own_tolerance(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward", dtype=torch.bfloat16)
    loaded.model.config.pad_token_id = loaded.renderer.pad_id
    check_rewards(Loaded(loaded.model, loaded.renderer), lists_of(loaded), "reward")
