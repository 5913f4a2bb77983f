"""Templates for the teacher: checked before anything is asked, with file and line; a recipe's own in place of ours."""

import json
import re

import pytest

from posttrain.data.tables import read_table
from posttrain.errors import UserError
from posttrain.stages import External, Size
from synth.generate_spec import SPEC, GenerateConfig
from synth.prompts import FOLDER, Wording, checked_templates
from synth.sources import pipeline_spec
from tests.synth.conftest import Files
from tests.synth.scripted import Scripted

ENTRY = {"from": "general", "rows": 2, "seeds": "seeds.jsonl"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n{{ word }", "t.jinja:2: unexpected '}'"),
        ("a\n\n{{ wrod }}", "t.jinja:3: 'wrod' is not given; given were word"),
        ("a\n{% if word %}b", "t.jinja:2"),
        ("a\nb { word }}", "t.jinja:2: a stray '}}'"),
        ("a\nb { word } c", r"t.jinja:2: a stray '{ word }'; write {{ word }}"),
        ("{% for x in word %}{{ y }}{% endfor %}", "t.jinja:1: 'y' is not given"),
    ],
)
def test_faults_name_file_and_line(text, told):
    with pytest.raises(UserError, match=re.escape(told)):
        Wording(text, "t.jinja").check(["word"])


@pytest.mark.parametrize(
    "text", ["{{ word }} {% for x in word %}{{ x }}{% endfor %}", '{"a": 1}', '{% raw %}{"a": {"b": 1}}{% endraw %}']
)
def test_what_is_right_passes(text):
    Wording(text, "t.jinja").check(["word"])


def test_a_variable_that_is_missing_while_asking_is_told_too():
    with pytest.raises(UserError, match=r"t\.jinja:2: 'word' is undefined; given were other"):
        Wording("a\n{{ word }}", "t.jinja").render({"other": 1})


def test_shipped_templates_get_what_they_read():
    """Every pipeline's, with the variables its spec promises; and no file is left that nothing asks."""
    entries = {
        "general": ENTRY,
        **{name: {"rows": 1} for name in ("tool_use", "multilingual", "long_context", "instructions")},
    }
    asked = set()
    for name, entry in entries.items():
        spec = pipeline_spec(entry.get("from", "synth"))
        used = spec.templates(name, spec.Config.model_validate(entry))
        checked_templates(used, {})
        asked |= used.keys()
    assert {"general/new_prompts", "general/persona", "general/revise", "tool_use/new_prompt"} <= asked
    assert all((FOLDER / f"{name}.jinja").is_file() for name in asked)


def test_a_recipes_own_template_is_asked_and_enters_the_key(tmp_path, synthesize):
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"prompt": "Name three rivers."}) + "\n")
    own = tmp_path / "mine.jinja"
    own.write_text("Make {{ count }} of them, in {{ language }}: {{ examples }}")
    server = Scripted(
        lambda text, body: "1. What is the tallest tree?" if "Make 5 of them" in text else "It is a redwood."
    )
    entry = {
        **ENTRY,
        "rows": 1,
        "templates": {"general/new_prompts": "mine.jinja"},
        "constraints": 0,
        "system": 0,
        "revised": 0,
    }
    job = synthesize(server.endpoint(), {"general": entry})
    assert [row.messages[0]["content"] for row in read_table(job.folder, "rows")] == ["What is the tallest tree?"]
    wired = SPEC.wire(GenerateConfig(prompts={"general": entry}), Files("t", tmp_path))
    assert wired["templates-general"][0] == External(str(own), "f", Size())
    ours = SPEC.wire(GenerateConfig(prompts={"general": ENTRY}), Files("t", tmp_path))["templates-general"]
    assert len({one.fingerprint for one in ours}) == len(ours) == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("general/new_prompts", "{{ cuont }}", "mine.jinja:1: 'cuont' is not given"),
        ("general/evolve", "x", "templates: general/evolve is not asked here; known are general/new_prompts"),
    ],
)
def test_a_faulty_own_template_stops_the_plan(tmp_path, name, text, told):
    (tmp_path / "mine.jinja").write_text(text)
    config = GenerateConfig(prompts={"general": {**ENTRY, "templates": {name: "mine.jinja"}}})
    with pytest.raises(UserError, match=told):
        SPEC.wire(config, Files("t", tmp_path))


def test_a_missing_folder_stops_the_plan(tmp_path):
    config = GenerateConfig(prompts={"code": {"from": "code", "rows": 1, "snippets": "our/sources"}})
    with pytest.raises(UserError, match="our/sources is not there; name a folder or file"):
        SPEC.wire(config, Files("t", tmp_path))


WRITTEN = """\
prompt: |
  Write a question that a cook
  could ask about {{ dish }}.
seeds: [{dish: risotto}, {dish: goulash}]
system: You are a cook of {{ dish }}.
answer: true
check: {name: needle, args: {needles: ["{{ dish }}"]}}
"""


def cook(text, body):
    if text.startswith("Write a question"):
        dish = re.search(r"about (\w+)", text)[1]
        return f"Number {body['seed']}: how long must {dish} stand before my guests can eat it?"
    dish = re.search(r"must (\w+)", text)[1]
    return f"The {dish} must stand for ten minutes." if "0" in text else "It must stand for ten minutes."


def test_a_pipeline_in_one_yaml(tmp_path, synthesize):
    (tmp_path / "cooking.yaml").write_text(WRITTEN)
    job = synthesize(Scripted(cook).endpoint(), {"cooking": {"from": "cooking.yaml", "rows": 2}}, share=0.0)
    rows, rejects = read_table(job.folder, "rows"), read_table(job.folder, "rejects")
    assert rows
    for row in rows:
        dish = re.search(r"must (\w+)", row.messages[1]["content"])[1]
        assert row.messages[0] == {"role": "system", "content": f"You are a cook of {dish}."}
        assert dish in row.messages[2]["content"]
        assert row.capability == "cooking"
    assert {reject.reason for reject in rejects} <= {"like another", "wrong"}


def test_of_many_seeds_no_more_are_asked_than_rows_want(tmp_path, synthesize):
    (tmp_path / "cooking.yaml").write_text(re.sub(r"seeds: .*", "checks: {different: null}", WRITTEN))
    dishes = ({"dish": f"dish{number}"} for number in range(500))
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(dish) + "\n" for dish in dishes))
    server = Scripted(cook)
    entry = {"from": "cooking.yaml", "rows": 10, "seeds": "seeds.jsonl"}
    job = synthesize(server.endpoint(), {"cooking": entry}, share=0.0)
    assert 5 <= job.summary["prompts"]["cooking"]["kept"] <= 10
    assert len(server.asked) <= 2 * 2 * 13, "a prompt and its answer of each, in two passes"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("{{ dish }}.\nseeds", "{{ dihs }}.\nseeds"), "cooking.yaml:3: 'dihs' is not given; given were dish"),
        (("cook of {{ dish }}", "cook of {{ dish }"), "cooking.yaml:5"),
        (("answer: true", "answers: true"), "cooking.yaml:6 answers: extra inputs are not permitted"),
        (("seeds: [{dish: risotto}, {dish: goulash}]\n", ""), "give seeds either in it or in the recipe's entry"),
    ],
)
def test_a_faulty_yaml_stops_the_plan_with_its_line(tmp_path, change, told):
    (tmp_path / "cooking.yaml").write_text(WRITTEN.replace(*change))
    config = GenerateConfig(prompts={"cooking": {"from": "cooking.yaml", "rows": 2}})
    with pytest.raises(UserError, match=re.escape(told)):
        SPEC.wire(config, Files("t", tmp_path))
