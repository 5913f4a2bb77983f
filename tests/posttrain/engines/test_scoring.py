"""Rewards over a shared prompt equal those of separate rows by transformers."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from posttrain.engines.loading import load_model
from posttrain.engines.scoring import rewards, split_answers
from posttrain.errors import UserError
from posttrain.machine import Machine

MACHINE = Machine(device="cpu", threads=1)
PROMPTS = ["What is 42?", "Wie ist das Wetter in München? " * 4, "the cat " * 20]
ANSWERS = [["a", "a much longer answer about 42 birds", ""], ["Rom"], ["no", "yes yes yes"]]


def as_messages(texts):
    return [{"role": "assistant", "content": text} for text in texts]


def test_rewards_equal_separate_rows(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    users = [[{"role": "user", "content": text}] for text in PROMPTS]
    conversations = [
        split_answers(loaded, user, (), as_messages(own)) for user, own in zip(users, ANSWERS, strict=True)
    ]
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model, num_labels=1, dtype=torch.float32)
    expected = [
        [plain(torch.tensor([[*prompt, *tail]])).logits.item() for tail in tails] for prompt, tails in conversations
    ]
    for batch_tokens in (1, 300, 100_000):
        found = rewards(loaded, conversations, batch_tokens)
        assert [len(own) for own in found] == [3, 1, 2]
        for got, want in zip(found, expected, strict=True):
            assert got == pytest.approx(want, abs=1e-5)
    assert len({round(value, 4) for own in expected for value in own}) == 6


def test_the_reward_is_read_at_the_end_of_turn(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    _, tails = split_answers(loaded, [{"role": "user", "content": "x"}], (), as_messages(["a", "b c"]))
    assert [tail[-1] for tail in tails] == [loaded.renderer.eot_id] * 2


def test_a_conversation_longer_than_the_model_is_refused(tiny_reward_model):
    loaded = load_model(tiny_reward_model, MACHINE, "reward")
    with pytest.raises(UserError, match="2,048 positions"):
        split_answers(loaded, [{"role": "user", "content": "42 " * 2000}], (), as_messages(["a"]))
