"""The code pipeline against a scripted server, with the real linter, compilers and sandbox."""

import itertools
import re
import shutil

import pytest

from posttrain.chat.messages import checked
from posttrain.checks.verifiers import grade
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from synth.code.toolchains import lacking
from synth.pipelines.code_spec import PIPELINE, CodeConfig
from tests.synth.scripted import Scripted

NAMES = "river engine cloud garden violin bridge planet kitchen harbour".split()
SOURCE = """\
def {name}_sum(values):
    total = 0
    for value in values:
        total += value * {factor}
    return total

"""


class Teacher:
    """Solves problems on sums. `faults`: word of the problem's name → what goes wrong there."""

    def __init__(self, faults=None, always=None):
        self.faults, self.always = faults or {}, always
        self.problems = itertools.count(1)

    def __call__(self, text, body):
        first = text.split("\n", 1)[0]
        for start, answer in (
            ("Read a few lines", self.problem), ("Solve this", self.solution), ("Here is a programming", self.tests),
            ("A solution in", self.revision), ("Here is some", self.program), ("Translate", self.translation),
            ("Read some", self.explanation), ("Write Python code that does", self.again), ("You grade", self.grade),
        ):  # fmt: skip
            if first.startswith(start):
                return answer(text)
        raise AssertionError(first)

    def fault(self, text):
        name = re.search(r"\b(\w+)_(?:sum|total)\b", text)[1]
        return name, self.always or self.faults.get(name, "")

    def problem(self, text):
        number = next(self.problems)
        one, other = NAMES[number % len(NAMES)], "north south".split()[number // len(NAMES)]
        said = (
            f"Write a function {one}_total(values) for the {one} beside the {other}: it returns the sum of all {one} "
            f"numbers in the list `values`, and 0 for an empty {other} list."
        )
        return f"<problem>{said}</problem>"

    def solution(self, text):
        name, fault = self.fault(text)
        good = f"def {name}_total(values):\n    return sum(values)\n"
        code = {
            "linter": f"def {name}_total(values):\n    return add_up(values)\n",
            "syntax": f"def {name}_total(values:\n    return sum(values)\n",
            "wrong": f"def {name}_total(values):\n    return sum(values) + 1\n",
            "hopeless": f"def {name}_total(values):\n    return -1\n",
            "prints": f"print('<|eot' + '_id|>')\n\n\ndef {name}_total(values):\n    return -1\n",
            "early": f"import os\n\n\ndef {name}_total(values):\n    os._exit(0)\n",
        }.get(fault, good)
        if fault == "no block":
            return "I would rather talk about it."
        if fault == "control":
            return f"Sure.\n```python\n{good}```\n<|eot_id|>"
        if fault == "cut":
            return f"Sure.\n```python\n{good}```", "length"
        return f"I add them up.\n```python\n{code}```\nIt is linear."

    def tests(self, text):
        name, fault = self.fault(text)
        if fault == "vacuous":
            return "```python\nassert 1 + 1 == 2\nassert True\nassert 3 > 2\n```"
        if fault == "few":
            return f"```python\nassert {name}_total([]) == 0\n```"
        wanted = 7 if fault in ("bad test", "weaker") else 6
        return (
            f"```python\nassert {name}_total([]) == 0\nassert {name}_total([1, 2, 3]) == {wanted}\n"
            f"assert {name}_total([-1]) == -1\n```"
        )

    def revision(self, text):
        name, fault = self.fault(text)
        if fault == "weaker":
            return f"<fix>tests</fix> One was wrong.\n```python\nassert {name}_total([]) == 0\n```"
        if fault == "bad test":
            tests = (
                f"assert {name}_total([]) == 0\nassert {name}_total([1, 2, 3]) == 6\nassert {name}_total([-1]) == -1"
            )
            return f"<fix>tests</fix> One was wrong.\n```python\n{tests}\n```"
        if fault == "hopeless":
            return f"<fix>solution</fix> Hm.\n```python\ndef {name}_total(values):\n    return -1\n```"
        return (
            f"<fix>solution</fix> I had that wrong.\n```python\ndef {name}_total(values):\n    return sum(values)\n```"
        )

    def program(self, text):
        name, fault = self.fault(text)
        if fault == "silent":
            return f"```python\n{name}_sum([1])\n```"
        return f"```python\nfor values in ([], [1, 2], [5]):\n    print({name}_sum(values))\n```"

    def translation(self, text):
        name, fault = self.fault(text)
        factor = int(re.search(r"value \* (\d+)", text)[1]) + (fault == "wrong")
        broken = "(" if fault == "syntax" else ""
        if "JavaScript" in text.split("\n", 1)[0]:
            mark, code = (
                "javascript",
                f"const {name}_sum = values => values.reduce((t, v) => t + v * {factor}, 0{broken})",
            )
            program = f"for (const values of [[], [1, 2], [5]]) console.log({name}_sum(values))"
        else:
            mark = "cpp"
            code = (
                f"#include <vector>\nint {name}_sum(std::vector<int> values) {{\n  int t = 0{broken};\n"
                f"  for (int v : values) t += v * {factor};\n  return t;\n}}"
            )
            program = (
                "#include <iostream>\nvoid tests(void) {\n"
                "  for (std::vector<int> v : {std::vector<int>{}, {1, 2}, {5}})\n"
                f"    std::cout << {name}_sum(v) << '\\n';\n}}"
            )
        return f"<code>\n```{mark}\n{code}\n```\n</code>\n<program>\n```{mark}\n{program}\n```\n</program>"

    def explanation(self, text):
        name, fault = self.fault(text)
        factor = re.search(r"value \* (\d+)", text)[1]
        if fault == "quotes":
            return "It does `for value in values:` and then `total += value * " + factor + "` for each."
        return f"The function {name}_sum takes a list, multiplies each number by {factor} and returns their sum."

    def again(self, text):
        name, fault = self.fault(text)
        factor = int(re.search(r"number by (\d+)", text)[1])
        if fault == "syntax":
            return "```python\ndef broken(:\n```"
        return f"```python\ndef {name}_sum(values):\n    return sum(one * {factor} for one in values)\n```"

    def grade(self, text):
        return "Score: 3" if self.fault(text)[1] == "unfaithful" else "The same.\nScore: 9"


@pytest.fixture
def code(tmp_path, synthesize):
    folder = tmp_path / "sources"
    folder.mkdir()
    text = "".join(SOURCE.format(name=name, factor=place + 2) for place, name in enumerate(NAMES))
    (folder / "sums.py").write_text(text)

    def code(rule, kind="feedback", name="out", **source):
        entry = {"from": "code", "rows": 4, "snippets": "sources", "kinds": {kind: 1}, "like": 1.0, **source}
        return synthesize(Scripted(rule).endpoint(), {"code": entry}, name, share=0.0)

    return code


def tables(job):
    return {name: read_table(job.folder, name) for name in ("prompts", "rows", "rejects", "documents")}


def reasons(job):
    return {one.reason for one in read_table(job.folder, "rejects")}


def test_what_fails_is_corrected_and_kept_with_its_corrections(code):
    wrong = dict(zip(NAMES, ["", "wrong", "linter", "syntax", "early", "", "bad test", ""], strict=False))
    job = code(Teacher(wrong), rows=7)
    found = tables(job)
    assert len(found["rows"]) == 7
    by_name = {re.search(r"(\w+)_total", row.messages[0]["content"])[1]: row for row in found["rows"]}
    for name, row in by_name.items():
        assert grade_of(found, row) == 1.0, name
        fault = wrong.get(name, "")
        answers = [message for message in row.messages if message["role"] == "assistant"]
        assert len(answers) == (2 if fault in ("wrong", "linter", "syntax", "early") else 1)
        assert row.labels["revisions"] == (fault != "")
        assert not any("train" in message for message in answers[:-1])
        checked(row.messages, row.tools)
    # Two of 14 draws are the same lines; of the others four faults came twice and the bad test once.
    assert job.summary["code"]["code"] == {"solved": 13, "self_corrected": 9, "share": 0.6923}


def grade_of(found, row):
    """By the tests of the row's prompt, as a policy's answer would be."""
    prompt = next(one for one in found["prompts"] if one.messages[0] == row.messages[0])
    return grade(prompt.check, row.messages[-1]).value


def test_the_feedback_tells_what_was_said(code):
    job = code(Teacher(always="wrong"), rows=1)
    row = read_table(job.folder, "rows")[0]
    told = row.messages[2]["content"]
    assert "return code: 1" in told
    assert "AssertionError" in told
    assert "_total([1, 2, 3]) == 6" in told
    linted = read_table(code(Teacher(always="linter"), rows=1, name="linted").folder, "rows")[0]
    assert "F821 Undefined name `add_up`" in linted.messages[2]["content"]


def test_rows_are_traced_to_their_snippets(code):
    found = tables(code(Teacher(), rows=2))
    documents = {one.id: one for one in found["documents"]}
    for row in found["rows"]:
        assert documents[row.parents[1]].title.startswith("sums.py:")
        assert documents[row.parents[1]].text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hopeless", "tests fail"), ("vacuous", "tests pass without a solution"), ("few", "too few tests"),
        ("weaker", "fewer tests"), ("no block", "no code block"), ("control", "control tokens"),
        ("prints", "control tokens"), ("cut", "cut"),
    ],
)  # fmt: skip
def test_a_bad_teacher_makes_no_row(code, fault, reason):
    bad = dict.fromkeys(NAMES[2:], fault)
    job = code(Teacher(bad), rows=2)
    assert reason in reasons(job)
    assert {re.search(r"(\w+)_total", row.messages[0]["content"])[1] for row in read_table(job.folder, "rows")} <= {
        "river", "engine",
    }  # fmt: skip


def test_a_teacher_that_is_never_right_stops_the_stage(code):
    with pytest.raises(UserError, match="tests fail"):
        code(Teacher(always="hopeless"), rows=1, revisions=1)


class Scripts(Teacher):
    """Writes JavaScript; its first solution is wrong."""

    def solution(self, text):
        name, _ = self.fault(text)
        return f"So.\n```javascript\nfunction {name}_total(values) {{ return values.length }}\n```"

    def tests(self, text):
        name, _ = self.fault(text)
        lines = [f"check({name}_total([{many}]) === {total})" for many, total in (("", 0), ("1, 2, 3", 6), ("-1", -1))]
        return "\n".join(["```js", "const check = require('node:assert')", *lines, "```"])

    def revision(self, text):
        name, _ = self.fault(text)
        code = f"function {name}_total(values) {{ return values.reduce((t, v) => t + v, 0) }}"
        return f"<fix>solution</fix> It counted them.\n```javascript\n{code}\n```"


@pytest.mark.skipif(bool(lacking("javascript")), reason="no node")
def test_other_languages_are_corrected_too(code):
    job = code(Scripts(), rows=1, languages=["javascript"])
    row = read_table(job.folder, "rows")[0]
    assert row.labels == {"kind": "feedback", "programming_language": "javascript", "revisions": 1}
    assert "AssertionError" in row.messages[2]["content"]
    assert "reduce" in row.messages[3]["content"]
    assert read_table(job.folder, "prompts") == []  # no verifier grades JavaScript


@pytest.mark.parametrize("target", ["javascript", "c++"])
def test_a_translation_prints_what_the_original_prints(code, target):
    if lacking(target):
        pytest.skip(f"no {lacking(target)}")
    faults = dict(zip(NAMES, ["wrong", "syntax", "silent"], strict=False))
    job = code(Teacher(faults), "translation", rows=len(NAMES), targets=[target])
    rows = read_table(job.folder, "rows")
    assert len(rows) == len(NAMES) - 3
    assert {row.labels["to"] for row in rows} == {target}
    text = rows[0].messages[1]["content"]
    assert text.startswith("```javascript\nconst" if target == "javascript" else "```c++\n#include <vector>")
    failing = "translation fails" if target == "javascript" else "translation does not compile"
    assert {failing, "translation prints something else", "prints too little"} <= reasons(job)


def test_an_explanation_is_kept_when_the_code_can_be_written_from_it(code):
    faults = dict(zip(NAMES, ["quotes", "syntax", "unfaithful"], strict=False))
    job = code(Teacher(faults), "explained", rows=len(NAMES))
    rows = read_table(job.folder, "rows")
    assert len(rows) == 2 * (len(NAMES) - 3)
    assert {row.labels["faithful"] for row in rows} == {9.0}
    assert {row.messages[0]["content"].split()[0] for row in rows} == {"Explain", "Write"}
    assert {"explanation quotes its code", "syntax", "judged too low"} <= reasons(job)


def test_a_language_without_a_toolchain_is_said(code, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "node" else which(name, path=path))
    with pytest.raises(UserError, match="no node here"):
        code(Teacher(), languages=["javascript"])


def test_a_dead_endpoint_loses_nothing_that_was_finished(code):
    """The server dies at the 12th answer; the same command asks only what is lacking, and the same rows come out."""
    teacher, said, asked = Teacher({"engine": "wrong", "cloud": "linter"}), {}, []

    def same(text, body):
        asked.append(text)
        return said[text]

    def dying(text, body):
        return 400 if len(asked) > 12 else same(text, body)

    whole = code(lambda text, body: said.setdefault(text, teacher(text, body)), name="whole", rows=3)
    with pytest.raises(UserError, match="400"):
        code(dying, name="dead", rows=3)
    before = len(asked)
    again = code(same, name="dead", rows=3)
    assert len(asked) - before == len(said) - before
    assert tables(again) == tables(whole)


def test_nothing_is_asked_where_nothing_can_be_run(code, monkeypatch):
    monkeypatch.setattr("synth.code.toolchains.fault", lambda: "there is no sandbox")
    teacher = Teacher()
    with pytest.raises(UserError, match="is run before it is kept: there is no sandbox"):
        code(teacher)
    assert next(teacher.problems) == 1


def test_the_recipe_is_checked():
    with pytest.raises(ValueError, match="python, javascript, bash"):
        CodeConfig(rows=1, snippets="s", languages=["cobol"])
    with pytest.raises(ValueError, match="weights"):
        CodeConfig(rows=1, snippets="s", kinds={"feedback": 0})
    expected = PIPELINE.estimate("code", CodeConfig(rows=100, snippets="s", kinds={"feedback": 1}), {})
    assert expected.asked == 640  # 200 problems, each with a solution and tests, a fifth of them corrected
    assert expected.made["prompts"].rows == expected.made["rows"].rows == 100
