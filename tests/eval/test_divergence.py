"""The divergence of two checkpoints against plain forwards, one answer at a time, and its limit in the gate."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from eval.divergence import divergence, kl_by_token, summed
from eval.gate import run
from eval.gate_spec import SPEC, GateConfig
from posttrain.chat import Renderer, build_tokenizer
from posttrain.data.rows import Check, Prompt, Response, Score
from posttrain.data.tables import write_table
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job, Size

MACHINE = Machine(device="cpu", threads=1, batch_tokens=256)
ANSWERED = [
    (prompt, Response(prompt.id, 0, "well " * (1 + i), "stop" if i % 2 else "length", 1, None))
    for i in range(6)
    for prompt in [
        Prompt(({"role": "user", "content": f"Question {i}?"},), "a", check=Check("exact", {"answers": ["x"]}))
    ]
]


@pytest.fixture
def moved(tiny_model, tmp_path):
    """The tiny model with other weights in its last layer."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5).add_(0.3 * torch.randn_like(model.model.norm.weight))
    model.save_pretrained(tmp_path / "moved")
    Renderer.from_pretrained(tiny_model).tokenizer.save_pretrained(tmp_path / "moved")
    return tmp_path / "moved"


def plainly(new, old):
    """Mean KL of each answer, from whole rows one by one."""
    renderer = Renderer.from_pretrained(new)
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (new, old)]
    found = []
    for prompt, response in ANSWERED:
        start = renderer.prompt(prompt.messages)
        tail = renderer.tokenizer.encode(response.text, add_special_tokens=False)
        tail += [renderer.eot_id] if response.finish == "stop" else []
        with torch.no_grad():
            p, q = (model(torch.tensor([start + tail])).logits[0].softmax(-1).double() for model in models)
        places = range(len(start) - 1, len(start) + len(tail) - 1)
        found.append(sum((p[i] * (p[i] / q[i]).log()).sum().item() for i in places) / len(tail))
    return found


def test_divergence_is_that_of_whole_rows_one_by_one(tiny_model, moved):
    found = divergence(moved, tiny_model, ANSWERED, MACHINE)
    assert found == pytest.approx(plainly(moved, tiny_model), rel=1e-3)
    assert min(found) > 0.001
    assert divergence(moved, moved, ANSWERED, MACHINE) == pytest.approx([0.0] * 6, abs=1e-6)


def test_kl_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): ½ ln 2 + ½ ln ⅔ = 0.1438."""
    new, old = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 3.0]]]).log()
    assert kl_by_token(new, old).item() == pytest.approx(0.143841, abs=1e-6)


def test_summed_by_hand():
    """Mean 2, standard deviation 1, three answers: 2 ± 1.96 / √3."""
    found = summed([1.0, 2.0, 3.0])
    assert (found["low"], found["high"]) == pytest.approx((2 - 1.13157, 2 + 1.13157), abs=1e-4)


def test_other_tokens_cannot_be_compared(tiny_model, tmp_path):
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(other)
    build_tokenizer(["zz yy xx"], 300).save_pretrained(other)
    with pytest.raises(UserError, match=r"have other tokens each, so drift\.kl cannot be measured"):
        divergence(tiny_model, other, ANSWERED, MACHINE)


@pytest.mark.parametrize(("limit", "failed"), [(1e-4, ["drift of kl"]), (50.0, [])])
def test_a_checkpoint_beyond_its_limit_is_dropped(tiny_model, moved, tmp_path, limit, failed):
    write_table(tmp_path, "prompts", [prompt for prompt, _ in ANSWERED])
    for name in ("before", "now"):
        folder = tmp_path / name
        folder.mkdir()
        write_table(folder, "responses", [response for _, response in ANSWERED])
        write_table(folder, "scores", [Score(response.id, "verifier", 1.0) for _, response in ANSWERED])
        (folder / "report.json").write_text(json.dumps({"overall": {"accuracy": 1.0}, "capability": {}}))
    inputs = {
        "candidate": moved, "previous": tiny_model, "prompts": [tmp_path],
        "evaluation": tmp_path / "now", "previous_evaluation": tmp_path / "before",
    }  # fmt: skip
    (tmp_path / "gate").mkdir()
    job = Job(GateConfig(drift={"kl": limit}), inputs, tmp_path / "gate", 0, 2, "gate", MACHINE)
    run(job)
    assert job.summary["failed"] == failed
    assert job.summary["kept"] == ("previous" if failed else "candidate")
    assert job.summary["drift"]["kl"]["after"] == pytest.approx(sum(plainly(moved, tiny_model)) / 6, rel=1e-3)


def test_the_plan_knows_that_it_reads_answers_with_two_models():
    """100 of 400 answers: 2 · 200 parameters · ¼ · (800 + 400) tokens at 1e6 FLOP/s."""
    sizes = {"evaluation": Size(rows=400, tokens=400), "candidate": Size(parameters=100), "prompts": [Size(tokens=800)]}
    config = GateConfig(drift={"kl": 0.1, "kl_answers": 100})
    size = SPEC.estimate(config, sizes, Machine(teraflops=1e-6))
    assert size.seconds == pytest.approx(2 * 200 * 300 / 1e6)
    assert size.memory == 2 * SPEC.estimate(config, sizes, MACHINE).parameters * 2
    assert SPEC.estimate(GateConfig(), sizes, MACHINE).seconds == 0
