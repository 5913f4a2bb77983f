"""lm-eval as a suite, on local task files and a random tiny model; what the harness says is what is read back."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from eval.run import run as evaluate
from eval.run_spec import EvaluateConfig
from eval.suites.lm_eval_spec import LmEvalConfig
from posttrain.chat import Renderer
from posttrain.data.tables import read_table
from posttrain.endpoint import Endpoint
from posttrain.errors import UserError
from posttrain.machine import Machine
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import shipped_recipes
from posttrain.stages import Job
from tests.posttrain.engines.stub import MODEL, Stub

pytest.importorskip("lm_eval", reason="lm-eval is missing: pip install 'posttrain[lm-eval]'")
from lm_eval.tasks._yaml_loader import load_yaml  # its own reader of task files, which follows what they include

from eval.harness_tasks import all_tasks
from eval.suites.lm_eval import run as make_suite

MACHINE = Machine(device="cpu", threads=1)
DATA = "dataset_path: json\ndataset_kwargs: {data_files: {test: records.jsonl}}\ntest_split: test\n"
WRITES = f"""\
task: local_writes
{DATA}output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
fewshot_split: test
fewshot_config: {{sampler: first_n}}
num_fewshot: 2
generation_kwargs: {{until: ["q"], do_sample: false, max_gen_toks: 6}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOOSES = f"""\
task: local_chooses
{DATA}output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: place
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
BEGUN = CHOOSES.replace("local_chooses", "local_begun") + 'gen_prefix: "It is"\n'
READS = f"""\
task: local_reads
{DATA}output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{answer}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""
RECORDS = [
    {"question": f"What is {i} and {i}?", "answer": str(2 * i), "choices": ["small", "large enough"], "place": i % 2}
    for i in range(8)
]


@pytest.fixture
def tasks(tmp_path):
    """A folder of task files with their data beside them."""
    folder = tmp_path / "my_tasks"
    folder.mkdir()
    for text in (WRITES, CHOOSES, BEGUN, READS):
        (folder / f"{text.split()[1]}.yaml").write_text(text)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return folder


@pytest.fixture
def make(tmp_path, tasks):
    """Make the suite of some tasks; returns its folder."""

    def make(*names, name="mine", **fields):
        folder = tmp_path / name
        folder.mkdir()
        config = LmEvalConfig(tasks=names, include=str(tasks), **fields)
        make_suite(Job(config, {"include": str(tasks)}, folder, 1, 0, name, MACHINE))
        return folder

    return make


@pytest.fixture
def answer(tmp_path, tiny_model):
    """Evaluate a model on a suite's folder."""

    def answer(suite, model=tiny_model):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        inputs = {"prompts": [suite], "model": model}
        job = Job(EvaluateConfig(chunk=5), inputs, folder, 3, name="evaluate-base", machine=MACHINE)
        evaluate(job)
        return job

    return answer


def test_a_generating_task_has_its_prompts_answers_and_grades_as_rows(make, answer, tiny_model):
    suite = make("local_writes", n=5)
    prompts = {prompt.made_by["doc"]: prompt for prompt in read_table(suite, "prompts")}
    assert sorted(prompts) == [0, 1, 2, 3, 4]
    # Two examples as turns; the harness leaves the record itself out of them where it can.
    assert [message["role"] for message in prompts[4].messages] == ["user", "assistant"] * 2 + ["user"]
    assert prompts[4].messages[-1]["content"] == RECORDS[4]["question"]
    assert prompts[4].messages[1]["content"] == RECORDS[0]["answer"]
    job = answer(suite)
    said = {response.prompt_id: response for response in read_table(job.folder, "responses")}
    assert {response.tokens <= 6 for response in said.values()} == {True}
    samples = read_table(job.folder, "samples")
    for sample in samples:
        text = said[sample.prompt_id].text.split("q")[0]
        wanted = RECORDS[{p.id: d for d, p in prompts.items()}[sample.prompt_id]]["answer"]
        assert sample.value == float(text == wanted)
        assert sample.parsed == (text or None)
    harness = job.summary["suites"]["mine"]["harness"]["results"]["local_writes"]
    assert job.summary["overall"]["accuracy"] == harness["exact_match,none"]
    assert job.summary["overall"]["n"] == 5


@pytest.mark.parametrize("task", ["local_chooses", "local_begun"])
def test_a_choosing_task_takes_the_likeliest_text(make, answer, tiny_model, task):
    """Against the plain model, one row at a time, tokens split as the harness splits them."""
    suite = make(task)
    job = answer(suite)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    renderer = Renderer.from_pretrained(tiny_model)
    prompts = {prompt.id: prompt for prompt in read_table(suite, "prompts")}
    right = []
    for response in read_table(job.folder, "responses"):
        prompt = prompts[response.prompt_id]
        prefix = prompt.made_by.get("prefix", "")
        context = renderer.prompt(prompt.messages) + renderer.ids(prefix)
        found = []
        for text in prompt.made_by["choices"]:
            tail = renderer.ids(prefix + text)[len(renderer.ids(prefix)) :]
            with torch.no_grad():
                logprobs = model(torch.tensor([context + tail])).logits[0].log_softmax(-1)
            places = range(len(context) - 1, len(context) + len(tail) - 1)
            found.append(sum(logprobs[i, id].item() for i, id in zip(places, tail, strict=True)))
        assert response.index == found.index(max(found))
        assert response.logprob == pytest.approx(max(found), abs=1e-4)
        right.append(response.index == RECORDS[prompt.made_by["doc"]]["place"])
    assert job.summary["overall"]["accuracy"] == sum(right) / 8
    assert job.summary["suites"]["mine"]["harness"]["results"][task]["acc,none"] == sum(right) / 8


def test_a_generating_task_that_begins_the_answer_is_gone_on_with(make, answer, tasks, tiny_model):
    """Against the plain model, greedy, from the prompt and the beginning."""
    (tasks / "local_writes.yaml").write_text(WRITES.replace('until: ["q"]', "until: []") + 'gen_prefix: "It is"\n')
    suite = make("local_writes", n=3, shots=0)
    prompts = {prompt.id: prompt for prompt in read_table(suite, "prompts")}
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    renderer = Renderer.from_pretrained(tiny_model)
    for response in read_table(answer(suite).folder, "responses"):
        ids = renderer.prompt(prompts[response.prompt_id].messages) + renderer.ids("It is")
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] not in renderer.stop_ids:
            with torch.no_grad():
                ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        said = [id for id in ids[start:] if id not in renderer.stop_ids]
        assert response.text == renderer.tokenizer.decode(said, clean_up_tokenization_spaces=False)


def test_perplexity_of_texts_is_that_of_the_harness_itself(make, answer, tasks, tiny_model):
    """Against lm-eval's own hf backend; one text is longer than the model takes, the windows then lie as there. Unless
    told, the harness puts a second BOS before Llama's texts, and counts how likely that is."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = shutil.copytree(tiny_model, tasks.parent / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    records = [*RECORDS, {**RECORDS[0], "question": "a long text of rain " * 30}]
    (tasks / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    job = answer(make("local_reads"), folder)
    found = job.summary["suites"]["mine"]["harness"]["results"]["local_reads"]
    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", max_length=39, add_bos_token=False)
    with contextlib.chdir(tasks):
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        theirs = simple_evaluate(model, tasks=["local_reads"], task_manager=manager, bootstrap_iters=0)["results"]
    for metric in ("word_perplexity,none", "bits_per_byte,none"):
        assert found[metric] == pytest.approx(theirs["local_reads"][metric], rel=1e-4)
    assert job.summary["overall"]["n"] == 0 and len(read_table(job.folder, "responses")) == 9


def test_another_metric_may_be_the_grade_and_tasks_are_categories(make, answer):
    job = answer(make("local_chooses", "local_begun", metric="acc_norm,none"))
    suite = job.summary["suites"]["mine"]
    assert set(suite["categories"]) == {"local_chooses", "local_begun"}
    for task, part in suite["categories"].items():
        assert part["accuracy"] == suite["harness"]["results"][task]["acc_norm,none"]


def test_shots_and_length_may_be_set(make, answer):
    suite = make("local_writes", shots=0, max_new_tokens=2)
    assert {len(prompt.messages) for prompt in read_table(suite, "prompts")} == {1}
    job = answer(suite)
    assert max(response.tokens for response in read_table(job.folder, "responses")) == 2


def test_the_suite_keeps_its_task_files(make, answer, tasks):
    """What happens to the originals later changes nothing."""
    suite = make("local_writes")
    (tasks / "records.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    assert answer(suite).summary["overall"]["n"] == 8


def test_records_that_changed_under_a_suite_are_told(make, answer):
    suite = make("local_writes")
    file = Path(suite / "tasks" / "records.jsonl")
    file.write_text(file.read_text().replace("What is 3", "What was 3"))
    with pytest.raises(UserError, match=r"record 3 of lm-eval's task local_writes is another one .* --force mine"):
        answer(suite)


def test_an_unknown_task_is_told_with_the_nearest_name(tmp_path):
    job = Job(LmEvalConfig(tasks=("gsm8k_lama",)), {}, tmp_path, 1, 0, "mine", MACHINE)
    with pytest.raises(UserError, match=r"has no task 'gsm8k_lama'; did you mean gsm8k_llama\?"):
        make_suite(job)


@pytest.mark.parametrize(
    ("suite", "shots", "tokens"),
    [
        ("mmlu", 5, 10), ("mmlu_cot", 0, 1024), ("mmlu_pro", 5, 1024), ("arc_c", 0, 100), ("gsm8k", 8, 1024),
        ("gpqa", 0, 2048), ("math", 0, 5120), ("mgsm", 0, 2048),
    ],
)  # fmt: skip
def test_the_shipped_benchmarks_keep_to_llamas_protocol(suite, shots, tokens):
    """Shots and longest answers of eval_details.md, in the task files where the recipe leaves them to those."""
    recipe = load_recipe(shipped_recipes()["llama-3.1-benchmarks"])
    config = next(entry.config for entry in recipe.setup if entry.name == suite)
    assert config.tasks
    for task in leaves(config.tasks):
        assert (task["num_fewshot"] if config.shots is None else config.shots) == shots
        assert (config.max_new_tokens or task["generation_kwargs"]["max_gen_toks"]) == tokens
        assert task["output_type"] == "generate_until"
        if config.metric:
            metric, _, filter = config.metric.partition(",")
            assert metric in [one["metric"] for one in task["metric_list"]]
            assert not filter or filter in [one["name"] for one in task["filter_list"]]


def leaves(names):
    """The configs of the tasks that groups and tags come to, read without their data."""
    manager = all_tasks()
    for name in names:
        entry = manager.task_index[name]
        if entry.yaml_path is not None and "task" in (cfg := load_yaml(entry.yaml_path, resolve_func=False)):
            if isinstance(cfg["task"], str):
                yield cfg
            else:
                yield from leaves([one for one in cfg["task"] if isinstance(one, str)])
        else:
            tagged = [key for key, other in manager.task_index.items() if name in other.tags]
            assert tagged, name
            yield from leaves(tagged)


def test_a_metric_that_a_task_lacks_is_told(make, answer):
    with pytest.raises(UserError, match=r"local_chooses has no metric 'f1'; it has acc,none; acc_norm,none"):
        answer(make("local_chooses", metric="f1"))


def test_data_that_is_not_there_is_told(make, tasks):
    (tasks / "records.jsonl").unlink()
    with pytest.raises(UserError, match=r"the tasks local_writes of lm-eval cannot be loaded \(FileNotFoundError: "):
        make("local_writes")


def test_a_task_that_runs_what_the_model_wrote_is_refused(make, tasks):
    (tasks / "local_writes.yaml").write_text(WRITES + "unsafe_code: true\n")
    with pytest.raises(UserError, match=r"runs code that the model writes, outside of any sandbox; use eval\.suites"):
        make("local_writes")


CODE_EVAL = """\
import os

if os.environ.get("HF_ALLOW_CODE_EVAL") != "1":
    raise ValueError("To use this, set HF_ALLOW_CODE_EVAL to 1")

def text(doc):
    return doc["question"]
"""


def test_a_task_that_tries_code_as_it_is_loaded_runs_where_the_recipe_says_so(make, tasks, tmp_path, monkeypatch):
    """As HumanEval and MBPP do with the metric `code_eval`."""
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    (tasks / "tried.py").write_text(CODE_EVAL)
    task = WRITES.replace('"{{question}}"', "!function tried.text") + "unsafe_code: true\n"
    (tasks / "local_writes.yaml").write_text(task)
    with pytest.raises(UserError, match=r"the task local_writes of lm-eval runs code that the model writes"):
        make("local_writes", name="refused")
    folder = tmp_path / "allowed"
    folder.mkdir()
    machine = Machine(device="cpu", threads=1, untrusted_code="run_unsandboxed")
    config = LmEvalConfig(tasks=("local_writes",), include=str(tasks), shots=0, n=3)
    make_suite(Job(config, {"include": str(tasks)}, folder, 1, 0, "allowed", machine))
    assert len(read_table(folder, "prompts")) == 3


def test_a_generating_task_runs_on_an_endpoint(make, answer):
    """The stub says the last message in capitals; examples reach it as turns."""
    stub = Stub()
    job = answer(make("local_writes", n=4), Endpoint(endpoint=stub.url, model=MODEL))
    stub.shutdown()
    asked = [body["messages"] for body in stub.asked if len(body["messages"]) == 5]
    assert len(asked) == 4
    assert {turns[1]["content"] for turns in asked} <= {record["answer"] for record in RECORDS}
    said = read_table(job.folder, "responses")
    assert all(response.text.startswith("WHAT IS ") for response in said)
    assert job.summary["overall"] | {"n": 4, "accuracy": 0.0} == job.summary["overall"]


def test_an_endpoint_without_a_tokenizer_cannot_go_on_with_an_answer(make, answer, tasks):
    (tasks / "local_writes.yaml").write_text(WRITES + 'gen_prefix: "It is"\n')
    served = Endpoint(endpoint="http://localhost:9/v1", model="m")
    with pytest.raises(UserError, match=r"begins each answer itself, .* name the `tokenizer:` of the model"):
        answer(make("local_writes"), served)


@pytest.mark.parametrize("task", ["local_chooses", "local_reads"])
def test_an_endpoint_is_refused_what_it_cannot_say(make, answer, task):
    served = Endpoint(endpoint="http://localhost:9/v1", model="m")
    with pytest.raises(UserError, match="likelihood of given texts, which the endpoint of m cannot say"):
        answer(make(task), served)
