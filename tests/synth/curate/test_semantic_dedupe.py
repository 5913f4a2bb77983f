"""Clusters and greedy choice by hand, and the stage with real encoders: the tiny base, and a small RoBERTa."""

import math

import pytest
import torch

from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.rounds.shipped import tiny_models_folder
from synth.curate.encode import Encoder
from synth.curate.semantic_dedupe import cluster, products, thin
from tests.synth.curate.conftest import kept_ids, reasons, rejects, row

BASE = str(tiny_models_folder() / "base")


def at(*degrees):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_greedy_keeps_what_is_far_from_everything_kept():
    """cos 20° = 0.94, cos 25° = 0.91: 20° is near 0°; 40° is near 20° only, which went; 45° is near 40°."""
    gone = thin(at(0, 20, 40, 45, 180), threshold=0.93)
    assert {place: (twin, round(cosine, 4)) for place, (twin, cosine) in gone.items()} == {
        1: (0, 0.9397), 3: (2, 0.9962),
    }  # fmt: skip
    assert thin(at(0, 20), threshold=0.95) == {}
    assert thin(at(10, 10), threshold=1.0).keys() <= {1}


def test_clusters_are_the_groups_that_there_are():
    groups = cluster(at(0, 5, 10, 120, 125, 130, 240, 245, 250), 3, seed=1)
    assert [len(set(groups[i : i + 3].tolist())) for i in (0, 3, 6)] == [1, 1, 1]
    assert torch.equal(groups, cluster(at(0, 5, 10, 120, 125, 130, 240, 245, 250), 3, seed=1))
    assert cluster(at(0, 90), 1, seed=0).tolist() == [0, 0]
    assert set(cluster(at(7, 7, 7), 3, seed=0).tolist()) == {0}


def test_the_order_is_quality_times_difficulty_where_anybody_has_them():
    none = -math.inf
    assert products([(0.5, 3.0), (1.0, 1.0), (none, 3.0)]) == [1.5, 1.0, none]
    assert products([(0.5, none), (1.0, none)]) == [0.5, 1.0]
    assert products([(none, none)]) == [1.0]


def test_encoding_is_the_mean_state_whatever_the_batch():
    encoder = Encoder(BASE, Machine(device="cpu", threads=1))
    texts = ["the weather in Rome", "a", "", "book a table for two people at eight <|eot_id|>"]
    done = []
    alone = encoder.encode(texts, 64, 1, done.append)
    together = encoder.encode(texts, 64, 4, done.append)
    assert done == [1, 2, 3, 4, 4]
    assert torch.allclose(alone, together, atol=1e-5)
    assert torch.allclose(alone.norm(dim=1), torch.ones(4), atol=1e-5)
    ids = torch.tensor([encoder.tokenizer(texts[0])["input_ids"]])
    mean = encoder.model(ids).last_hidden_state[0].mean(0).detach()
    assert torch.allclose(alone[0], mean / mean.norm(), atol=1e-5)
    cut = encoder.encode(["the weather in Rome"], 2, 1, done.append)
    assert not torch.allclose(cut[0], alone[0], atol=1e-3)


def test_the_stage_keeps_the_best_of_rows_that_mean_the_same(curate):
    worse, better, other = rows = [
        row("It is sunny in Rome today.", "q", labels={"quality": 0.5, "difficulty": 2}),
        row("It is sunny in Rome today!", "q", labels={"quality": 1.0, "difficulty": 2}),
        row('{"name": "f", "parameters": {"x": 1}}', "12 4 8 99", labels={"quality": 0.1, "difficulty": 1}),
    ]
    config = {"asked": {"encoder": BASE}, "encoder": "base", "threshold": 0.98}
    job = curate("semantic_dedupe", rows, **config)
    assert kept_ids(job) == {better.id, other.id}
    assert reasons(job) == {worse.id: "semantic duplicate"}
    detail = rejects(job)[worse.id].detail
    assert (detail["of"], detail["cluster"]) == (better.id, 0)
    assert 0.98 <= detail["cosine"] <= 1.0
    again = curate("semantic_dedupe", [other], [better, worse], **config)
    assert kept_ids(again) == kept_ids(job)
    assert rejects(again)[worse.id].detail == detail


def test_any_encoder_folder_will_do(curate, tmp_path):
    encoder = tmp_path / "roberta"
    small_roberta(encoder)
    rows = [row(f"answer {n}", f"question number {n}") for n in range(9)]
    job = curate(
        "semantic_dedupe",
        rows,
        asked={"encoder": str(encoder)},
        encoder="e",
        cluster_rows=3,
        threshold=1.0,
        batch_size=2,
    )
    assert job.rows["rows"] + job.rows["rejects"] == 9
    assert 1 <= job.summary["clusters"] <= 3


def small_roberta(folder):
    """A RoBERTa with random weights, and the tiny base's tokenizer."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=600, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_folder_without_a_model_is_an_error(curate, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        curate("semantic_dedupe", [row("x")], asked={"encoder": str(tmp_path)}, encoder="e")
