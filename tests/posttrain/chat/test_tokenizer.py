"""The tokenizer we build: Llama 3.1's control tokens, digits apart, and the same after saving and loading."""

from pathlib import Path

import pytest

from posttrain.chat import CONTROL_TOKENS, Renderer, build_tokenizer
from posttrain.errors import UserError

from .conftest import CORPUS


def test_control_tokens_stand_at_the_end_in_the_order_of_llama(renderer: Renderer) -> None:
    tokenizer = renderer.tokenizer
    ids = tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS))
    assert ids == list(range(len(tokenizer) - 16, len(tokenizer)))
    assert CONTROL_TOKENS[6:10] == ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|finetune_right_pad_id|>",
    )
    assert (renderer.eot_id, renderer.stop_ids, renderer.pad_id) == (ids[9], (ids[9], ids[8]), ids[4])


def test_vocabulary_is_as_large_as_asked_and_made_without_control_tokens() -> None:
    tokenizer = build_tokenizer(["<|start_header_id|>abc<|end_header_id|>" * 50], vocab_size=256 + 16 + 100)
    assert len(tokenizer) == 256 + 16 + 2  # "abc" has two merges; the control tokens' letters have none
    assert len(build_tokenizer(CORPUS, vocab_size=300)) == 300


def test_digits_stand_alone(renderer: Renderer) -> None:
    tokens = renderer.tokenizer.tokenize("on 2024-07-26, 1234567 times")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == list("202407261234567")


def test_plain_text_gets_one_bos_and_decodes_to_itself(renderer: Renderer) -> None:
    for text in CORPUS:
        ids = renderer.tokenizer(text)["input_ids"]
        assert ids.count(renderer.tokenizer.bos_token_id) == 1
        assert renderer.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_saved_and_loaded_renders_the_same(renderer: Renderer, tmp_path: Path) -> None:
    renderer.tokenizer.save_pretrained(tmp_path)
    loaded = Renderer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": CORPUS[2]}, {"role": "assistant", "content": CORPUS[3]}]
    assert loaded.conversation(messages) == renderer.conversation(messages)
    assert loaded.tokenizer.apply_chat_template(messages, return_dict=False) == renderer.conversation(messages).ids
    assert (loaded.eot_id, loaded.stop_ids, loaded.pad_id) == (renderer.eot_id, renderer.stop_ids, renderer.pad_id)


def test_same_texts_make_the_same_tokenizer() -> None:
    first, second = (build_tokenizer(CORPUS * 3, vocab_size=500).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="vocab_size is 200, less than the 272"):
        build_tokenizer(CORPUS, vocab_size=200)
