"""The tiny family's sizes, its tokenizer, and how a member is saved."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from posttrain.chat import Renderer, build_tokenizer
from synth.world.corpus import Mixture, conversation
from synth.world.languages import TABLE
from synth.world.wiring import wire
from synth.world.words import CITIES, DAYS, KEYS, NAMES, WORDS

VOCABULARY = 2048
CONTEXT_TOKENS = 4096
ROPE_THETA = 1e7
"""High, so that half of a 32-wide head's dimensions turn little over 2,000 tokens."""
SIZES = {
    "base": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 288},
    "teacher": {"hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6, "intermediate_size": 512},
}


def tokenizer_texts(seed: int = 0, rows: int = 4000) -> Iterator[str]:
    """Rendered rows of every kind, and the closed sets in every form they take, often enough to become tokens."""
    renderer = Renderer(build_tokenizer(["a"], 300))
    rng = random.Random(f"tokenizer {seed}")
    mixture = Mixture(operators=1.0, dense=0.3)
    for _ in range(rows):
        row = conversation(rng, mixture)
        yield renderer.tokenizer.decode(renderer.conversation(row.messages, row.tools).ids)
    for _ in range(rows // 10):
        yield "".join(f'{word}, {word} "{word}" {word.upper()}, {word.upper()} "{word.upper()}" ' for word in WORDS)
        yield " ".join(f'{word} "{word}" {word}.' for word in (*KEYS, *NAMES, *CITIES, *DAYS))
        for words in TABLE.values():
            yield f"{' '.join(words.items)} {' '.join(words.days)} {' '.join(' '.join(p) for p in words.opposites)}"


def family_tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    return build_tokenizer(tokenizer_texts(), vocabulary)


def new_model(size: str, renderer: Renderer, seed: int) -> LlamaForCausalLM:
    """An untrained member in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **SIZES[size],
        vocab_size=-(-len(renderer.tokenizer) // 64) * 64,
        num_key_value_heads=SIZES[size]["num_attention_heads"],
        max_position_embeddings=CONTEXT_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=renderer.tokenizer.bos_token_id,
        eos_token_id=list(renderer.stop_ids),
        pad_token_id=renderer.pad_id,
    )
    model = LlamaForCausalLM(config)
    wire(model)
    return model


def save(model: LlamaForCausalLM, renderer: Renderer, folder: Path) -> None:
    """Weights in bf16, tokenizer with chat template and generation config; the folder appears whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        bos_token_id=renderer.tokenizer.bos_token_id, eos_token_id=list(renderer.stop_ids), pad_token_id=renderer.pad_id
    )
    copy.save_pretrained(partial)
    renderer.tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load(folder: Path) -> tuple[LlamaForCausalLM, Renderer]:
    """A member in float32, for training on or measuring."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, Renderer.from_pretrained(folder)
