"""Synthesis with a teacher that follows rules: what is kept, what is dropped and why, resuming, and files."""

import json
import re
from collections import Counter

import pytest
from pydantic import ValidationError

from posttrain.chat import Renderer
from posttrain.chat.messages import undeclared
from posttrain.data.rows import Prompt
from posttrain.data.tables import read_table
from posttrain.engines import Completion, Engine
from posttrain.errors import Interrupted, UserError
from posttrain.machine import Machine
from posttrain.stages import Amount, External, Size
from synth import generate, world
from synth.generate_spec import SPEC, GenerateConfig
from synth.pipelines.world import draw_specs
from synth.pipelines.world_spec import WorldConfig, asked
from tests.synth.conftest import Files

LONG = {"long_context": {"from": "synth", "rows": 20, "lengths": [100]}}


class RuleTeacher(Engine):
    """An engine that words and answers long_context tasks by rule, and goes wrong as told by a request's seed."""

    def __init__(self, model):
        self.renderer = Renderer.from_pretrained(model)
        self.asked = []
        self.faults = {}
        """`unfaithful`, `cut`, `wrong`: one in so many texts."""

    def goes_wrong(self, fault, request):
        return fault in self.faults and request.seed % self.faults[fault] == 0

    def generate(self, requests, sampling):
        for request in requests:
            self.asked.append(request)
            text = request.messages[-1]["content"]
            operator = text.startswith("Write a question whose answer is: The code of ")
            reply = self.question(text, request) if operator else self.answer(text, request)
            finish = "length" if self.goes_wrong("cut", request) else "stop"
            yield [Completion(request.id, 0, reply, (1, 2, 3), -1.0, finish, request.seed)]

    def question(self, text, request):
        key = "Nobody" if self.goes_wrong("unfaithful", request) else re.search(r"code of (\w+) is", text)[1]
        return f"What is the code of {key}? Say it in words number {request.seed}."

    def answer(self, text, request):
        found = re.search(r"What is the code of (\w+)\?", text)
        if found is None or self.goes_wrong("wrong", request):
            return "I do not know."
        return re.search(rf"The code of {found[1]} is \w+\.", text)[0]

    def close(self):
        pass


@pytest.fixture
def teacher(tiny_model, monkeypatch):
    teacher = RuleTeacher(tiny_model)
    monkeypatch.setattr(generate, "open_engine", lambda model, machine: teacher)
    return teacher


@pytest.fixture
def make(teacher, synthesize):
    """The stage on the rule teacher."""

    def make(prompts, *args, **more):
        return synthesize("t", prompts, *args, **more)

    return make


def test_prompts_carry_the_specs_check_and_their_origin(teacher, make):
    job = make(LONG, share=1.0)
    prompts, rows = read_table(job.folder, "prompts"), read_table(job.folder, "rows")
    assert len(prompts) == 20
    assert [prompt.id for prompt in prompts] == sorted(prompt.id for prompt in prompts)
    assert {world.split(prompt) for prompt in prompts} == {"train"}
    for prompt in prompts:
        assert prompt.check.name == "exact"
        assert len(prompt.parents) == 1
        assert prompt.source == prompt.made_by["model"] == "teacher"
        assert (
            prompt.made_by.items() >= {"stage": "synthesize", "round": 2, "operator": "new_prompt", "level": 1}.items()
        )
        assert prompt.made_by["temperature"] == 0.7
    assert {row.parents[0]: row.messages[-1]["content"] for row in rows} == {
        prompt.id: prompt.check.args["answers"][0] for prompt in prompts
    }
    assert {name: job.rows[name] for name in ("prompts", "rows")} == {"prompts": 20, "rows": 20}


def test_every_drop_is_counted_by_its_reason(teacher, make):
    teacher.faults = {"unfaithful": 4, "cut": 5}
    job = make(LONG, share=1.0)
    operators = [request for request in teacher.asked if "\n\n" not in request.messages[0]["content"]]
    drops = dict(job.summary["drops"]["long_context"])
    repeated = drops.pop("same task twice", 0)
    assert drops["cut"] == sum(request.seed % 5 == 0 for request in operators)
    assert drops["unfaithful"] == sum(request.seed % 4 == 0 and request.seed % 5 != 0 for request in operators)
    assert drops["held-out split"] > 0
    kept = job.summary["prompts"]["long_context"]["kept"]
    assert kept + sum(drops.values()) == len(operators)
    assert len(operators) > asked(20) - repeated, "a second pass asked for what lacked"
    answered = [request for request in teacher.asked if "\n\n" in request.messages[0]["content"]]
    assert job.summary["drops"]["answers"] == {"cut": sum(request.seed % 5 == 0 for request in answered)}


def test_wrong_answers_are_no_rows(teacher, make):
    teacher.faults = {"wrong": 2}
    job = make(LONG, share=1.0)
    assert job.rows["rows"] + job.summary["drops"]["answers"]["wrong"] == 20
    assert 0 < job.rows["rows"] < 20


def test_the_share_is_chosen_by_the_prompts_id(teacher, make):
    job = make({"long_context": {**LONG["long_context"], "rows": 60}}, share=0.3)
    prompts, rows = read_table(job.folder, "prompts"), read_table(job.folder, "rows")
    assert {row.parents[0] for row in rows} == {p.id for p in prompts if generate.in_share(p, 0.3)}
    assert 6 <= len(rows) <= 32
    assert not any(generate.in_share(prompt, 0.0) for prompt in prompts)


def test_another_round_has_other_prompts_and_the_same_one_the_same_bytes(teacher, make):
    first, again, other = make(LONG), make(LONG, "again"), make(LONG, "other", seed=8)
    for table in ("prompts.parquet", "rows.parquet"):
        assert (first.folder / table).read_bytes() == (again.folder / table).read_bytes()
    ids = [{prompt.id for prompt in read_table(job.folder, "prompts")} for job in (first, other)]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("chunks", [1, 3, 5])
def test_stopped_anywhere_it_goes_on_with_the_chunks_it_lacks(teacher, make, chunks):
    teacher.faults = {"unfaithful": 4}
    whole = make(LONG, share=1.0)
    in_all = len(teacher.asked)
    teacher.asked.clear()
    reports = []
    fields = {"report": reports.append, "stopping": lambda: len(reports) == chunks}
    with pytest.raises(Interrupted):
        make(LONG, "stopped", fields=fields, share=1.0)
    resumed = make(LONG, "stopped", share=1.0)
    assert len(teacher.asked) == in_all
    for table in ("prompts.parquet", "rows.parquet"):
        assert (resumed.folder / table).read_bytes() == (whole.folder / table).read_bytes()
    clocked = {"spent"}
    for name in whole.summary.keys() - clocked:
        assert resumed.summary[name] == whole.summary[name]
    assert (resumed.folder / "report.json").read_bytes() == (whole.folder / "report.json").read_bytes()


def test_a_file_gives_a_seeded_choice_and_its_answers_need_no_check(teacher, make, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Say something about {i}."}) for i in range(50)))
    source = {"general": {"from": "file", "path": "mine.jsonl", "rows": 10}}
    job = make(source, share=1.0)
    other = make(source, "other", seed=8, share=1.0)
    prompts, elsewhere = (read_table(j.folder, "prompts") for j in (job, other))
    assert [prompt.source for prompt in prompts] == ["mine.jsonl"] * 10
    assert {prompt.id for prompt in prompts} != {prompt.id for prompt in elsewhere}
    assert job.rows == {"prompts": 10, "rows": 10, "rejects": 0}
    assert job.summary["drops"]["general"] == {"surplus": 40}


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL = '{"name": "%s", "parameters": {}}'
SAID = {
    "declared": CALL % "get_weather",
    "invented": CALL % "get_wether",
    "built in": '<|python_tag|>brave_search.call(query="rain")',
    "list": f"[{CALL % 'get_weather'}, {CALL % 'get_weather'}]",
}


@pytest.mark.parametrize(
    ("template", "kept", "drops"),
    [
        ("llama-3.1", ["declared", "built in", "list"], {"undeclared tool": 1}),
        ("llama-3.1-hf", ["declared", "built in"], {"call of another template": 1, "undeclared tool": 1}),
    ],
)
def test_calls_that_training_would_refuse_are_dropped_and_counted(
    template, kept, drops, teacher, make, tiny_model, tmp_path
):
    """The stock template has no list of calls: what a teacher of it writes so is text to it, and a call to ours."""
    teacher.renderer = Renderer.from_pretrained(tiny_model, template)
    teacher.answer = lambda text, request: SAID[text]
    path = tmp_path / "mine.jsonl"
    lines = [{"prompt": text, "tools": [TOOL, {"type": "brave_search"}]} for text in SAID]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"general": {"from": "file", "path": "mine.jsonl", "rows": 4}}
    job = make(source, share=1.0)
    rows = read_table(job.folder, "rows")
    assert sorted(row.messages[0]["content"] for row in rows) == sorted(kept)
    assert job.summary["drops"]["answers"] == drops
    dialect = None if template == "llama-3.1" else "hf"
    assert {row.made_by.get("dialect") for row in rows} == {dialect}
    for row in rows:
        assert not undeclared(row.messages, row.tools)
        teacher.renderer.conversation(row.messages, row.tools)


def test_a_file_for_a_capability_of_the_world_keeps_off_its_heldout_side(teacher, make, tmp_path):
    texts = [f"Question number {i}?" for i in range(60)]
    sides = Counter(world.split(Prompt(({"role": "user", "content": text},), "tool_use")) for text in texts)
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    job = make({"tool_use": {"from": "file", "path": "mine.jsonl", "rows": 60}})
    assert sides["heldout"] > 0
    assert job.summary["drops"]["tool_use"] == {"held-out split": sides["heldout"]}
    assert {prompt.capability for prompt in read_table(job.folder, "prompts")} == {"tool_use"}


def test_capabilities_may_share_a_file_whose_lines_name_theirs(teacher, make, tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"prompt": "a", "capability": "chat"}, {"prompt": "b", "capability": "code"}, {"prompt": "c"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    entry = {"from": "file", "path": "mine.jsonl", "rows": 5}
    job = make({"chat": entry, "code": entry})
    prompts = read_table(job.folder, "prompts")
    assert {(p.messages[0]["content"], p.capability) for p in prompts} >= {("a", "chat"), ("b", "code")}
    assert job.summary["drops"]["chat"] == job.summary["drops"]["code"] == {"other capability": 1}


def test_a_teacher_that_writes_nothing_usable_is_said_with_reasons(teacher, make):
    teacher.faults = {"unfaithful": 1}
    with pytest.raises(UserError, match=r"teacher made no usable prompt or dialog; .*'unfaithful': \d+"):
        make(LONG)


def test_a_random_model_is_such_a_teacher(tiny_model, synthesize):
    fields = {"machine": Machine(device="cpu", threads=1)}
    with pytest.raises(UserError, match="no usable prompt"):
        synthesize(tiny_model, {"instructions": {"rows": 3}}, fields=fields, max_new_tokens=8)


def test_languages_are_asked_for_in_equal_parts():
    specs = draw_specs("multilingual", WorldConfig(rows=1, languages=("de", "th", "hi")), 10, 3)
    assert Counter(spec["language"] for spec in specs) == {"de": 4, "th": 3, "hi": 3}


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ({}, "prompt pool is empty"),
        ({"cooking": {"rows": 1}}, "the world has no capability cooking"),
        ({"general": {"from": "file", "rows": 1}}, "Field required"),
        ({"tool_use": {"path": "x.jsonl", "rows": 1}}, "unknown key of `from: synth`; valid are from, rows"),
        ({"general": {"from": 3, "rows": 1}}, "name of a pipeline"),
        ({"general": {"from": "no.such.module", "rows": 1}}, "no PIPELINE in module no.such.module_spec"),
        ({"tool_use": {"rows": 0}}, "greater than or equal to 1"),
        ({"multilingual": {"rows": 1, "languages": ["tlh"]}}, "not tlh"),
        ({"tool_use": {"rows": 1, "level": 3}}, "level"),
    ],
)
def test_pools_that_are_none(prompts, reason):
    with pytest.raises(ValidationError, match=reason):
        GenerateConfig(prompts=prompts)


def test_a_config_survives_its_own_dump():
    config = GenerateConfig(prompts=LONG)
    assert GenerateConfig.model_validate(config.model_dump(mode="json")) == config


def test_wiring_takes_the_teacher_each_file_and_each_template(tmp_path):
    config = GenerateConfig(prompts={**LONG, "general": {"from": "file", "path": "mine.jsonl", "rows": 5}})
    wired = SPEC.wire(config, Files("model teacher", tmp_path))
    assert wired["teacher"] == "model teacher"
    assert wired["file-general"] == External(str(tmp_path / "mine.jsonl"), "f", Size())
    assert [one.source for one in wired["templates-long_context"]] == ["synth/prompts/long_context/new_prompt.jinja"]
    assert wired["pipeline-long_context"] == External("synth.pipelines.world", "2", Size())


def test_the_estimate_counts_writing_and_answering():
    config = GenerateConfig(prompts=LONG, share=0.5, max_new_tokens=50)
    size = SPEC.estimate(config, {"teacher": Size(parameters=10)}, Machine())
    # 26 tasks are worded in 20 tokens each; half of the 20 prompts get an answer of a fifth of 50 tokens.
    assert (size.rows, size.tokens) == (20, 26 * 20 + 10 * 10)
    assert (size.of("prompts"), size.of("rows")) == (Amount(20, 20 * 100), Amount(10, 10 * 110))
    assert size.seconds == pytest.approx(2 * 10 * (26 * 100 + 10 * 100 + 8 * 620) / 0.08e12)


def test_the_estimate_takes_the_length_of_prompts_from_their_file():
    config = GenerateConfig(prompts={"general": {"from": "file", "path": "mine.jsonl", "rows": 5}})
    size = SPEC.estimate(config, {"teacher": Size(), "file-general": Size(rows=40, tokens=2000)}, Machine())
    assert size.of("prompts") == Amount(5, 250)


OWN_SPEC = """
from posttrain.stages import Amount
from synth.sources import Expected, PipelineSpec, SourceConfig

class HaikuConfig(SourceConfig):
    about: str
    "What they are about."

PIPELINE = PipelineSpec(
    module="own.my_haiku", version=1, Config=HaikuConfig,
    estimate=lambda capability, config, sizes: Expected(config.rows, 9, 9, {"prompts": Amount(config.rows, 9)}),
)
"""
OWN = """
from synth.operators import user

def make(work):
    for number, wanted in work.passes():
        for place in range(wanted):
            item = work.item({"number": [number, place]})
            work.keep(item, work.prompt(item, [user(f"A haiku about {work.config.about}, number {place}.")]))
"""


def test_a_pipeline_of_ones_own_is_named_by_its_module(make, tmp_path, monkeypatch):
    (tmp_path / "my_haiku_spec.py").write_text(OWN_SPEC)
    (tmp_path / "my_haiku.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    prompts = {"poems": {"from": "my_haiku.", "rows": 3, "about": "snow"}}
    with pytest.raises(ValidationError, match="no PIPELINE in module"):
        GenerateConfig(prompts=prompts)
    prompts["poems"]["from"] = "own.my_haiku"
    (tmp_path / "own").mkdir()
    for name in ("my_haiku", "my_haiku_spec"):
        (tmp_path / f"{name}.py").rename(tmp_path / "own" / f"{name}.py")
    job = make(prompts, share=0.0)
    texts = [prompt.messages[0]["content"] for prompt in read_table(job.folder, "prompts")]
    assert sorted(texts) == [f"A haiku about snow, number {place}." for place in range(3)]
    wired = SPEC.wire(GenerateConfig(prompts=prompts), Files("t", tmp_path))["pipeline-poems"].fingerprint
    (tmp_path / "own" / "my_haiku.py").write_text(OWN + "# changed")
    assert SPEC.wire(GenerateConfig(prompts=prompts), Files("t", tmp_path))["pipeline-poems"].fingerprint != wired
