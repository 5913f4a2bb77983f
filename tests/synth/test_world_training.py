"""What the tiny family is trained on, and the wiring it starts from."""

import random
from pathlib import Path

import pytest
import torch

from posttrain.chat import Renderer, build_tokenizer
from synth.world.corpus import copying_row
from synth.world.family import load, new_model, save
from synth.world.train import batches, rate_at


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
