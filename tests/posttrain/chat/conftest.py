"""A byte tokenizer (no merges, so that ids can be worked out by hand) and one with merges, with their renderers."""

import pytest

from posttrain.chat import Renderer, build_tokenizer

CORPUS = (
    "What is the weather in Paris tomorrow?",
    "Wie wird das Wetter morgen in Köln? Il fera beau à Nîmes.",
    "พรุ่งนี้อากาศที่กรุงเทพเป็นอย่างไร",
    "कल दिल्ली में मौसम कैसा रहेगा?",
    '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
    '{"type": "function", "function": {"name": "convert", "description": "Convert money."}}',
    "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
)


@pytest.fixture(scope="session")
def byte_renderer() -> Renderer:
    return Renderer(build_tokenizer(CORPUS, vocab_size=256 + 16))


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return Renderer(build_tokenizer(CORPUS * 5, vocab_size=600))
