"""Attention of answers over shared prompts equals that of whole rows, gradients included."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from posttrain.engines import attention
from posttrain.engines.lists import AnswerList, collate, inputs_of

SPANS = [(5, 0, 3), (9, 3, 4), (7, 4, 6)]
"""Three prompts of 5, 9 and 7 tokens, padded to 9, with three, one and two answers of 4 tokens."""
HEADS, QUERIES, SIZE = 2, 3, 8


def parts():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, requires_grad=True)

    own = draw(6, HEADS, 4, SIZE), draw(6, HEADS, 4, SIZE)
    return draw(6, HEADS * QUERIES, 4, SIZE), *own, draw(3, HEADS, 9, SIZE), draw(3, HEADS, 9, SIZE)


def whole_rows(query, key, value, prompt_key, prompt_value, scale):
    """Each row by itself: its prompt's keys before its own, under a mask that looks back only."""
    rows = []
    for number, (length, start, end) in enumerate(SPANS):
        seen = torch.ones(4, length + 4, dtype=torch.bool).tril(length)
        for row in range(start, end):
            keys = torch.cat([prompt_key[number, :, :length], key[row]], 1).repeat_interleave(QUERIES, 0)
            values = torch.cat([prompt_value[number, :, :length], value[row]], 1).repeat_interleave(QUERIES, 0)
            rows.append(scaled_dot_product_attention(query[row], keys, values, seen, scale=scale))
    return torch.stack(rows)


def test_outputs_and_gradients_equal_those_of_whole_rows():
    tensors, weights = parts(), torch.randn(6, HEADS * QUERIES, 4, SIZE, generator=torch.Generator().manual_seed(1))
    query, key, value, prompt_key, prompt_value = tensors
    prompts = attention.Prompts([(prompt_key, prompt_value)], SPANS)
    ours, _ = attention.attend(SimpleNamespace(layer_idx=0), query, key, value, None, prompts, scaling=0.3)
    expected = whole_rows(*tensors, 0.3)
    torch.testing.assert_close(ours.transpose(1, 2), expected, atol=1e-6, rtol=1e-5)
    found = torch.autograd.grad((ours.transpose(1, 2) * weights).sum(), tensors)
    wanted = torch.autograd.grad((expected * weights).sum(), tensors)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_a_model_that_cannot_attend_this_way_copies_the_prompts_cache(tiny_model, kind):
    """Both ways give the logits of whole rows; `eager` has no such kernel and copies."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attn_implementation=kind)
    lists = [AnswerList([9] * 40, [[4, 5], [6] * 9, [7]]), AnswerList([8] * 13, [[3, 2, 1]])]
    with torch.no_grad():
        shared = collate(lists, 0, kept=1, force_shared=True)
        inputs = inputs_of(model, shared)
        assert ("answers_of" in inputs) == (kind == "sdpa")
        found = model(**inputs).logits
        rows = [(item, answer) for item in lists for answer in item.answers]
        for row, (item, answer) in enumerate(rows):
            alone = model(input_ids=torch.tensor([item.prompt + answer])).logits[0, len(item.prompt) - 1 :]
            torch.testing.assert_close(found[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_the_setting_is_not_saved_and_changes_no_other_pass(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.arange(20)[None]
    before = model(input_ids=ids).logits
    assert attention.use(model)
    assert torch.equal(model(input_ids=ids).logits, before)
    padded = torch.ones_like(ids)
    padded[:, :3] = 0
    assert model(input_ids=ids, attention_mask=padded).logits[0, 3:].isfinite().all()
    model.save_pretrained(tmp_path)
    assert attention.ATTENTION not in (tmp_path / "config.json").read_text()


def test_a_model_with_a_sliding_window_keeps_its_own_attention():
    config = MistralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8,
    )  # fmt: skip
    assert not attention.use(MistralForCausalLM(config))
