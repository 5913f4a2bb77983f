"""Suites answered by a random tiny model: dialogs, likelihood, several samples, a judge, and what the report says."""

import importlib
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from eval.run import run
from eval.run_spec import EvaluateConfig
from posttrain.chat import Renderer, build_tokenizer
from posttrain.data.tables import read_table
from posttrain.endpoint import Endpoint
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.stages import Job

MACHINE = Machine(device="cpu", threads=1)


@pytest.fixture
def evaluate(tmp_path, tiny_model):
    """Make suites (name → kind, fields, records) and evaluate a model on them."""

    def evaluate(suites, model=tiny_model, **inputs):
        folders = [make(tmp_path / name, name, tiny_model, *suite) for name, suite in suites.items()]
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        judge = "base" if "judge" in inputs else None
        config = EvaluateConfig(max_new_tokens=6, chunk=64, judge=judge, judge_max_new_tokens=6)
        job = Job(config, {"prompts": folders, "model": model, **inputs}, folder, 3, name="evaluate-x", machine=MACHINE)
        run(job)
        return job

    return evaluate


def make(folder, name, tiny_model, kind, fields, records=None):
    folder.mkdir()
    spec = importlib.import_module(f"eval.suites.{kind}_spec").SPEC
    inputs = {"tokenizer": tiny_model}
    if records is not None:
        inputs["file"] = folder / "file.jsonl"
        inputs["file"].write_text("".join(json.dumps(record) + "\n" for record in records))
    job = Job(spec.Config(**fields), inputs, folder, 7, 0, name, MACHINE)
    importlib.import_module(f"eval.suites.{kind}").run(job)
    return folder


def test_every_kind_is_answered_and_reported(evaluate):
    safe = [{"prompt": f"Ask {i}", "expect": ("refuse", "answer")[i % 2], "category": "S1"} for i in range(6)]
    job = evaluate({
        "calls": ("tool_use", {"n": 6, "max_new_tokens": 4}),
        "talks": ("dialogs", {"n": 2, "max_new_tokens": 4}),
        "world": ("multilingual", {"n": 8, "max_new_tokens": 4}),
        "long": (
            "long_context", {"n": 4, "lengths": [512, 1024], "tasks": ["needle"], "depths": 2, "max_new_tokens": 4}
        ),
        "rules": ("instructions", {"n": 25, "max_new_tokens": 4}),
        "sums": ("math", {"n": 3, "max_new_tokens": 4}),
        "code": ("code", {"n": 2, "samples": 3, "temperature": 1.0, "passes": [1, 3], "max_new_tokens": 4}),
        "safe": ("safety", {"path": "f", "max_new_tokens": 4}, safe),
        "facts": ("knowledge", {"path": "f"}, [{"question": "Capital?", "answers": ["Lima"]}]),
    })  # fmt: skip
    report = json.loads((job.folder / "report.json").read_text())
    numbers = {"calls": 6, "talks": 2, "world": 8, "long": 4, "rules": 25, "sums": 3, "code": 2, "safe": 6, "facts": 1}
    assert {name: part["n"] for name, part in report["capability"].items()} == numbers
    assert report["overall"]["n"] == sum(numbers.values())
    samples = read_table(job.folder, "samples")
    assert len(samples) == sum(numbers.values()) + 4
    assert all(sample.reason for sample in samples)
    suites = report["suites"]
    assert set(suites["calls"]["categories"]) == {
        "simple", "multiple", "parallel", "parallel_multiple", "irrelevance", "relevance",
    }  # fmt: skip
    assert suites["rules"]["mean_of_four"] == pytest.approx(
        (suites["rules"]["prompt_strict"] + suites["rules"]["prompt_loose"]
         + suites["rules"]["instruction_strict"] + suites["rules"]["instruction_loose"]) / 4
    )  # fmt: skip
    assert [(cell["length"], cell["depth"]) for cell in suites["long"]["heat"]] == [
        (512, 0.0), (512, 1.0), (1024, 0.0), (1024, 1.0),
    ]  # fmt: skip
    assert suites["code"]["pass"] == {"1": 0.0, "3": 0.0}
    assert suites["safe"]["violation_rate"]["n"] == suites["safe"]["false_refusal_rate"]["n"] == 3
    assert set(suites["world"]["languages"]) == {"en", "de", "fr", "it", "pt", "hi", "es", "th"}
    assert suites["facts"]["wrong"] == 1.0
    assert report["settings"]["suites"]["code"]["temperature"] == 1.0


def test_a_dialog_is_a_transcript_that_ends(evaluate):
    job = evaluate({"talks": ("dialogs", {"n": 3, "turns": 2, "max_new_tokens": 8})})
    for response in read_table(job.folder, "responses"):
        roles = [message["role"] for message in json.loads(response.text)]
        assert roles[:2] == ["user", "assistant"]
        assert len(roles) <= 2 * 2 * 8


def test_likelihood_takes_the_choice_that_the_model_finds_likeliest(evaluate, tiny_model):
    """Against the plain model, one row at a time."""
    job = evaluate({"which": ("choices", {"n": 5, "by": "likelihood"})})
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    renderer = Renderer.from_pretrained(tiny_model)
    prompts = {prompt.id: prompt for prompt in read_table(job.inputs["prompts"][0], "prompts")}
    for response in read_table(job.folder, "responses"):
        prompt = prompts[response.prompt_id]
        found = []
        for text in prompt.made_by["choices"]:
            start = len(renderer.prompt(prompt.messages))
            ids = renderer.conversation([*prompt.messages, {"role": "assistant", "content": text}]).ids
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            found.append(sum(logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))) / (len(ids) - start))
        assert response.index == found.index(max(found))
        assert response.logprob / response.tokens == pytest.approx(max(found), abs=1e-4)


def test_an_endpoint_cannot_say_the_likelihood_of_given_texts(evaluate):
    served = Endpoint(endpoint="http://localhost:9/v1", model="m")
    with pytest.raises(UserError, match="the endpoint of m cannot say; set by: letter"):
        evaluate({"which": ("choices", {"n": 2, "by": "likelihood"})}, model=served)


def test_chat_needs_a_judge_and_says_so(evaluate, tiny_model):
    records = [{"prompt": f"Say {i}.", "reference": "Yes."} for i in range(3)]
    with pytest.raises(UserError, match=r"the suite talk needs a judge; name a model at evaluate\.judge"):
        evaluate({"talk": ("chat", {"path": "f", "max_new_tokens": 4}, records)})


def test_a_judge_that_never_keeps_to_the_form_stops_it(evaluate, tiny_model):
    records = [{"prompt": f"Say {i}.", "reference": "Yes."} for i in range(3)]
    with pytest.raises(UserError, match="none of the judge's first 6 answers ends with a verdict"):
        evaluate({"talk": ("chat", {"path": "f", "max_new_tokens": 4}, records)}, judge=tiny_model)


def test_a_model_that_says_nothing_is_told(evaluate, tiny_model, tmp_path):
    """The end of the turn is made the likeliest token of all."""
    silent = tmp_path / "silent"
    renderer = Renderer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    model.model.norm.weight.data.zero_()
    model.save_pretrained(silent)
    renderer.tokenizer.save_pretrained(silent)
    config = json.loads((silent / "generation_config.json").read_text())
    (silent / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    with pytest.raises(UserError, match=r"every one of the 3 answers of .*silent is empty"):
        evaluate({"sums": ("math", {"n": 3, "max_new_tokens": 4})}, model=silent)


def test_measured_lengths_hold_for_the_evaluated_models_tokenizer(evaluate, tiny_model, tmp_path):
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(other)
    build_tokenizer(["zz yy xx"], 300).save_pretrained(other)
    suite = {"long": ("long_context", {"n": 2, "lengths": [512], "tasks": ["needle"], "max_new_tokens": 4})}
    with pytest.raises(UserError, match="its tokenizer or chat template is another one"):
        evaluate(suite, model=other)


def test_measured_lengths_hold_for_the_evaluated_models_template(evaluate, tiny_model, tmp_path):
    """The same tokenizer with a template that says another day, in many tokens, before each prompt."""
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(other)
    Renderer.from_pretrained(tiny_model, date="1 2 3 4 5 6 7 8 9 8 7 6 5 4 3 2 1 2 3 4").tokenizer.save_pretrained(
        other
    )
    suite = {"long": ("long_context", {"n": 2, "lengths": [512], "tasks": ["needle"], "max_new_tokens": 4})}
    with pytest.raises(UserError, match="its tokenizer or chat template is another one; name it at the suite's"):
        evaluate(suite, model=other)


def test_two_suites_with_one_prompt_are_told(evaluate):
    records = [{"prompt": "Same?", "reference": "yes"}]
    with pytest.raises(UserError, match="stands in two suites, one and two"):
        evaluate({"one": ("prompts", {"path": "f"}, records), "two": ("prompts", {"path": "f"}, records)})


def test_the_mean_of_samples_is_the_grade_of_a_prompt():
    from eval.table import Graded, sum_up
    from posttrain.data.rows import Prompt, Response

    prompt = Prompt(({"role": "user", "content": "x"},), "code")
    answers = [Graded(prompt, Response(prompt.id, i, "y", "stop", 1, None), float(i == 0), "", "y") for i in range(4)]
    found = sum_up(answers)
    assert (found["n"], found["accuracy"]) == (1, 0.25)
    assert math.isfinite(found["high"])
