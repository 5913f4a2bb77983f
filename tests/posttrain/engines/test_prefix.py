"""Prompts computed in passes of their own, and their common beginning once, against each prompt computed alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from posttrain.engines import prefix
from posttrain.engines.prefix import common_ids, compute, pieces

BEGIN = list(range(40, 60))
APART = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [1, 2], [3, 5, 8, 13, 21]]
ALIKE = [BEGIN + tail for tail in APART]


@pytest.fixture
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def test_a_pass_holds_so_many_tokens_padding_included(monkeypatch):
    monkeypatch.setattr(prefix, "PIECE_TOKENS", 12)
    assert list(pieces([3, 3, 4, 5, 2])) == [(0, 3), (3, 5)]  # three rows of 4, then two of 5
    assert list(pieces([30, 1, 1])) == [(0, 1), (1, 3)]
    assert list(pieces([2])) == [(0, 1)]


def test_what_all_prompts_begin_with_is_found_where_it_pays():
    assert common_ids(ALIKE) == 20
    assert common_ids([BEGIN, BEGIN]) == 18  # one id is left to run, and the last one
    assert common_ids([BEGIN]) == 0
    assert common_ids(APART) == 0
    assert common_ids([[7, *range(100)], [7, *range(50, 150)]]) == 0  # a single id of a hundred


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompts", [APART, ALIKE], ids=["apart", "alike"])
@pytest.mark.parametrize("size", [1, 12, 4096])
def test_keys_and_values_are_those_of_each_prompt_alone(monkeypatch, model, prompts, side, size):
    monkeypatch.setattr(prefix, "PIECE_TOKENS", size)
    longest = max(map(len, prompts)) - 1
    with torch.inference_mode():
        computed = compute(model, prompts, 0, side)
        assert computed.lengths.tolist() == [len(prompt) - 1 for prompt in prompts]
        assert computed.last.tolist() == [prompt[-1] for prompt in prompts]
        for row, prompt in enumerate(prompts):
            alone = DynamicCache()
            model(input_ids=torch.tensor([prompt[:-1]]), past_key_values=alone, use_cache=True)
            begin = 0 if side == "right" else longest - len(prompt) + 1
            places = slice(begin, begin + len(prompt) - 1)
            assert not computed.padded[row, places].any()
            assert int(computed.padded[row].sum()) == longest - len(prompt) + 1
            for found, expected in zip(computed.layers, alone.layers, strict=True):
                torch.testing.assert_close(found[0][row, :, places], expected.keys[0], atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(found[1][row, :, places], expected.values[0], atol=1e-5, rtol=1e-5)
                assert found[0].isfinite().all() and found[1].isfinite().all()
