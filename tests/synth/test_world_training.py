"""What the tiny family is trained on, and the wiring it starts from."""

import random
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from posttrain.artifacts import file_sha256
from posttrain.chat import Renderer, build_tokenizer
from synth.world.attention import BLOCK, attend
from synth.world.corpus import copying_row
from synth.world.family import load, new_model, save
from synth.world.growth import grow
from synth.world.train import STAGES, batches, make, rate_at


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(build_tokenizer(["The code of Falcon is amber. What is the code of Otter?"], 320))


def test_a_new_member_already_copies_what_it_has_seen(renderer: Renderer) -> None:
    model = new_model("base", renderer, seed=3).eval()
    once = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:24]
    with torch.no_grad():
        guessed = model(torch.cat([once, once])[None]).logits[0].argmax(-1)
    assert (guessed[24:47] == once[1:]).float().mean() > 0.6


def test_copying_rows_train_only_what_context_tells() -> None:
    rng = random.Random(4)
    for _ in range(200):
        ids, mask = copying_row(rng, 300)
        assert len(ids) == len(mask)
        for place in (i for i, on in enumerate(mask) if on):
            before = ids[:place]
            assert ids[place] in before, "a trained token that stands nowhere before cannot be copied"


def test_labels_are_the_next_trained_tokens(renderer: Renderer) -> None:
    rows = iter([([5, 6, 7, 8], [0, 0, 1, 1]), ([5, 6, 7], [0, 1, 2])])
    inputs, labels = next(batches(rows, batch_tokens=32, pad=renderer.pad_id))
    assert inputs.shape == labels.shape == (2, 16)
    assert inputs[0, :5].tolist() == [5, 6, 7, 8, renderer.pad_id]
    assert labels[:, :4].tolist() == [[-100, 7, 8, -100], [6, 7, -100, -100]]
    assert (labels[:, 4:] == -100).all()


def test_the_rate_warms_up_holds_and_falls() -> None:
    assert rate_at(0.0, 99, 1.0) == pytest.approx(0.5)
    assert rate_at(0.5, 5000, 1.0) == 1.0
    assert rate_at(0.8, 5000, 1.0) == pytest.approx(0.5)
    assert rate_at(1.0, 5000, 1.0) == pytest.approx(0.02)


def test_a_saved_member_is_whole_and_in_bf16(renderer: Renderer, tmp_path: Path) -> None:
    model = new_model("base", renderer, seed=3)
    save(model, renderer, tmp_path / "base")
    again, its_renderer = load(tmp_path / "base")
    assert {path.name for path in tmp_path.iterdir()} == {"base"}
    assert its_renderer.prompt([{"role": "user", "content": "amber"}]) == renderer.prompt(
        [{"role": "user", "content": "amber"}]
    )
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.to(torch.bfloat16).float()), name
    assert again.generation_config.eos_token_id == list(renderer.stop_ids)


def test_a_grown_member_says_what_the_small_one_said_and_all_of_it_learns(renderer: Renderer) -> None:
    small = new_model("base", renderer, seed=3)
    with torch.no_grad():
        for weight in small.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    large = new_model("teacher", renderer, seed=4)
    grow(small, large)
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    logits = large(ids).logits
    assert torch.allclose(logits, small(ids).logits, atol=1e-4)
    logits.log_softmax(-1)[..., 5].sum().backward()
    new = large.model.layers[0].self_attn.o_proj.weight.grad
    assert new is not None and (new[128:, 128:] != 0).all()
    assert large.model.embed_tokens.weight.grad is not None
    assert (large.model.embed_tokens.weight.grad[ids.unique(), 128:].abs().sum(0) > 0).all()


@pytest.mark.parametrize("tokens", [7, BLOCK, 2 * BLOCK + 45])
def test_attention_by_blocks_is_causal_attention(tokens: int) -> None:
    drawn = torch.Generator().manual_seed(5)
    ours = [torch.randn(2, 3, tokens, 32, generator=drawn).requires_grad_() for _ in range(3)]
    exact = [one.detach().clone().requires_grad_() for one in ours]
    wanted = scaled_dot_product_attention(*exact, is_causal=True).transpose(1, 2)
    made, _ = attend(None, *ours, None, scaling=32**-0.5)
    weights = torch.randn(wanted.shape, generator=drawn)
    (made.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert (made - wanted).norm() < 0.01 * wanted.norm()
    for one, other in zip(ours, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm()


def test_a_member_is_made_through_its_stages_and_again_to_the_bit(renderer: Renderer, tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        renderer.tokenizer.save_pretrained(tmp_path / name / "tokenizer")
        with torch.compiler.set_stance("force_eager"):
            made = make("base", tmp_path / name, tokens=6_000)
        assert {path.name for path in made.parent.iterdir()} == {"tokenizer", STAGES["base"].start, "base"}
        hashes.append([file_sha256(made.parent / stage / "model.safetensors") for stage in ("base-clean", "base")])
    assert hashes[0] == hashes[1]
    assert hashes[0][0] != hashes[0][1]


def test_what_is_made_is_not_made_again(renderer: Renderer, tmp_path: Path) -> None:
    for name in ("tokenizer", "base-clean", "base"):
        (tmp_path / name).mkdir()
    assert make("base", tmp_path) == tmp_path / "base"
    assert list((tmp_path / "base").iterdir()) == []
