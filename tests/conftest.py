"""Fixtures that several packages share: random tiny models with the project's own tokenizer."""

from pathlib import Path

import pytest

TEXTS = [
    "The cat sat on the mat and looked at 42 birds.",
    "Given the following functions, please respond with a JSON for a function call "
    '{"name": "f", "parameters": {"city": "Rom"}}',
    "Wie ist das Wetter in München? Quel temps fait-il à Paris? ¿Qué hora es? สวัสดี नमस्ते",
] * 3


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Llama in float32 and a tokenizer with the chat template, 2,048 positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from posttrain.chat import build_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = build_tokenizer(TEXTS, 512)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick start takes minutes, so whatever else is wrong is told before it."""
    items.sort(key=lambda item: item.get_closest_marker("quickstart") is not None)


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model`'s backbone with a random one-label head, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "tiny-reward"
    torch.manual_seed(1)
    LlamaForSequenceClassification.from_pretrained(tiny_model, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder
