"""Function calling with mined tools: a scripted teacher for all kinds, the tiny teacher for what its world has."""

import json
from collections import Counter
from pathlib import Path

import pytest

import posttrain
from posttrain.checks.calls import functions_of
from posttrain.checks.verifiers import grade
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from synth.generate_spec import SPEC, GenerateConfig
from synth.pipelines.functions_spec import PIPELINE, FunctionsConfig
from tests.synth.conftest import Files
from tests.synth.scripted import Scripted

SHOP = '''
def total(price: float, pieces: int = 1) -> float:
    """Price of several pieces of one thing."""
    return price * pieces

def discounted(price: float, percent: int) -> float:
    """Price after a reduction by some percent."""
    return price * (100 - percent) / 100

def currency_of(country: str) -> str:
    """Currency that people pay with in a country."""
    return {"Japan": "yen", "India": "rupee"}[country]

class Basket:
    def add_item(self, name: str) -> str:
        """Put a thing into the basket."""
'''
MADE_UP = {
    "total": [{"price": 9.0, "pieces": "many"}, {"price": 20.0}, *({"price": 3.5, "pieces": n} for n in range(2, 24))],
    "discounted": [{"price": 80.0, "percent": percent} for percent in range(5, 95, 4)],
    "currency_of": [{"country": "Japan"}, {"country": "Atlantis"}, {"country": "India"}],
}
VALUES = {
    "total": {20.0, *(3.5 * n for n in range(2, 24))},
    "discounted": {80 * (100 - percent) / 100 for percent in range(5, 95, 4)},
    "currency_of": {"yen", "rupee"},
}
THINGS = "apple river engine cloud garden violin bridge planet kitchen harbour winter castle".split()
VERBS = "clean describe build compare paint repair measure photograph".split()


class Teacher:
    """Writes requests for the calls it is shown and answers them by these calls; `habit` spoils one step."""

    def __init__(self, habit=""):
        self.habit = habit
        self.plans = {}
        self.count = 0

    def __call__(self, text, body):
        sections = text.split("\n====\n")
        if text.startswith("Read the definition"):
            return "[{" if self.habit == "broken JSON" else json.dumps(MADE_UP[json.loads(sections[1])["name"]])
        if text.startswith("Somebody talks"):
            return self.request(json.loads(sections[2].partition("\n====")[0]))
        if text.startswith("A program first"):
            inner = json.loads(sections[1].splitlines()[0])
            rest = {"total": {"pieces": 2}, "discounted": {"percent": 50}}.get(json.loads(sections[2])["name"])
            return json.dumps({"price": "$result", **rest}) if rest and inner["name"] != "currency_of" else "{}"
        if text.startswith(("An assistant can call", "You play a person")):
            return self.request(
                None if text.startswith("An") else {"name": "Basket_add_item", "parameters": {"name": "tea"}}
            )
        if text.startswith("You stand in"):
            return "added" if self.habit == "unreadable results" else '{"basket": ["tea"]}'
        if "erdict" in text:
            return (
                "Verdict: A is better"
                if text.find("What came out") < text.find("Who knows")
                else "Verdict: B is better"
            )
        return self.answer(body)

    def request(self, calls):
        self.count += 1
        words = (
            VERBS[self.count % 8],
            THINGS[self.count // 8 % 12],
            THINGS[(5 * self.count) % 12],
            VERBS[self.count // 3 % 8],
        )
        text = "How would you {} the old {} near my {} before they {} it, with number {}?".format(*words, self.count)
        if self.habit == "names" and calls:
            text = (
                f"Please call {calls['name'] if isinstance(calls, dict) else calls[0]['name']}( for me with the values."
            )
        self.plans[text] = calls
        return text

    def answer(self, body):
        messages, offered = body["messages"], {tool["function"]["name"] for tool in body.get("tools", ())}
        plan = self.plans[next(m["content"] for m in reversed(messages) if m["role"] == "user")]
        steps = unfolded(plan)
        asked = max(i for i, m in enumerate(messages) if m["role"] == "user")
        told = [m["content"] for m in messages[asked:] if m["role"] == "tool"]
        names = {call["name"] for step in steps for call in step}
        if self.habit == "endless" and names <= offered and plan:
            return json.dumps(steps[0][0])
        if not plan or not names <= offered:
            return "Who knows." if body["temperature"] else "I cannot work that out with what I have here, sorry."
        done = sum(bool(m.get("tool_calls")) for m in messages[asked:])
        if done == len(steps):
            said = "a secret" if self.habit == "forgets" else " and ".join(told[-3:])
            return "Who knows." if body["temperature"] else f"What came out is {said}."
        step = json.loads(json.dumps(steps[done]).replace('"$told"', told[-1] if told else "0"))
        if body["temperature"] or self.habit == "other values":
            name, value = next(iter(step[0]["parameters"].items()))
            step[0]["parameters"][name] = "India" if isinstance(value, str) else 1.25
        return json.dumps(step[0] if len(step) == 1 else step)


def unfolded(plan):
    """The messages with calls that a plan needs, one call within another as two."""
    if plan is None:
        return []
    if isinstance(plan, list):
        return [plan]
    for name, value in plan["parameters"].items():
        if isinstance(value, dict) and "parameters" in value:
            return [[value], [{**plan, "parameters": {**plan["parameters"], name: "$told"}}]]
    return [[plan]]


@pytest.fixture
def functions(tmp_path, synthesize):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "shop.py").write_text(SHOP)

    def functions(teacher=None, **source):
        server = Scripted(teacher or Teacher())
        entry = {"from": "functions", "rows": 40, "tree": "tree", "pairs": 0.0, "like": 1.0, **source}
        return synthesize(server.endpoint(), {"tool_use": entry})

    return functions


def rows_of(job):
    return {kind: [row for row in read_table(job.folder, "rows") if row.made_by["kind"] == kind]
            for kind in FunctionsConfig.model_fields["kinds"].default}  # fmt: skip


def reasons(job):
    return Counter((one.detail["step"], one.reason) for one in read_table(job.folder, "rejects"))


def test_every_kind_is_made_of_calls_that_ran(functions):
    job = functions(
        kinds={"simple": 1, "parallel": 1, "nested": 1, "unneeded": 1, "missing": 1, "inactive": 1},
        rows=36,
        sampled=True,
    )
    rows = rows_of(job)
    for row in rows["simple"]:
        _, call, result, answer = row.messages
        name = functions_of(call)[0]["name"]
        assert result["role"] == "tool" and call["train"]
        shown = result["content"] if name == "currency_of" else json.loads(result["content"])
        assert shown in VALUES[name] and answer["content"] == f"What came out is {result['content']}."
    assert {len(functions_of(row.messages[1])) for row in rows["parallel"]} <= {2, 3}
    for row in rows["parallel"]:
        assert [m["role"] for m in row.messages[2:-1]] == ["tool"] * len(functions_of(row.messages[1]))
    for row in rows["nested"]:
        _, _, result, second, _, _ = row.messages
        assert json.loads(result["content"]) == functions_of(second)[0]["arguments"]["price"]
    for kind in ("unneeded", "missing", "inactive"):
        assert {len(row.messages) for row in rows[kind]} == {2}
    assert all(row.tools for row in (*rows["unneeded"], *rows["missing"]))
    assert not any(row.tools for row in rows["inactive"])
    assert {kind for kind in rows if rows[kind]} == {"simple", "parallel", "nested", "unneeded", "missing", "inactive"}
    dropped = reasons(job)
    assert dropped["execute: schema", "arguments off the schema"] and dropped["execute: result", "call fails"]
    checks = {prompt.id: prompt.check for prompt in read_table(job.folder, "prompts")}
    graded = [row for kind in rows for row in rows[kind] if checks.get(row.parents[0])]
    assert len(graded) > 12
    assert {grade(checks[row.parents[0]], row.messages[1]).value for row in graded} == {1.0}


def test_a_talk_of_several_turns_has_a_user_and_results_that_the_teacher_plays(functions):
    job = functions(kinds={"turns": 1}, rows=5, turns=3)
    for row in read_table(job.folder, "rows"):
        roles = "".join(message["role"][0] for message in row.messages)
        assert roles in ("uatauata", "uatauatauata")
        assert all(m["content"] == '{"basket": ["tea"]}' for m in row.messages if m["role"] == "tool")


def test_a_message_written_twice_makes_a_pair_by_check_or_judge(functions):
    job = functions(kinds={"simple": 1}, pairs=1.0, rows=3, sampled=True)
    pairs = read_table(job.folder, "preferences")
    assert pairs
    for pair in pairs:
        if functions_of(pair.chosen):
            assert (pair.rating, [m["role"] for m in pair.prompt]) == (None, ["user"])
            assert functions_of(pair.chosen) != functions_of(pair.rejected)
        else:
            assert (pair.rating, [m["role"] for m in pair.prompt]) == ("better", ["user", "assistant", "tool"])
            assert pair.rejected["content"] == "Who knows."
    assert not {pair.prompt_id for pair in pairs} & {prompt.id for prompt in read_table(job.folder, "prompts")}


BAD = {
    "broken JSON": "broken JSON",
    "names": "names a function",
    "other values": "other calls than wanted",
    "endless": "calls without end",
    "forgets": "answer without the result",
    "unreadable results": "broken JSON",
}


@pytest.mark.parametrize("habit", BAD)
def test_bad_teachers_make_no_row(functions, habit):
    kinds = {"turns": 1} if habit == "unreadable results" else {"simple": 1}
    with pytest.raises(UserError, match=rf"no usable prompt or dialog.*'{BAD[habit]}': \d+"):
        functions(Teacher(habit), kinds=kinds, rows=4)


WORLD = '''
def get_weather(city: str, day: str):
    """get weather"""
    return "It is rocket"

def get_wind(city: str, day: str):
    """get wind"""
    return "It is velvet"

def book_hotel(city: str, people: int):
    """book hotel"""
    return "It is anchor"

def examples():
    from world import get_weather, get_wind, book_hotel
    get_weather("Paris", "Monday")
    get_weather("Rome", "Friday")
    get_wind("Oslo", "Sunday")
    get_wind("Madrid", "Tuesday")
    book_hotel("Berlin", 7)
    book_hotel("Vienna", 12)
'''


def test_the_tiny_teacher_words_calls_and_answers_from_what_really_ran(tmp_path, synthesize):
    """In its own world: the request is worded by its own template, the calls are its own, Python makes them."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "world.py").write_text(WORLD)
    (tmp_path / "query.jinja").write_text("Write a user request that asks for this function call: {{ calls }}\n")
    entry = {
        "from": "functions", "rows": 3, "tree": "tree", "kinds": {"simple": 1}, "pairs": 0.0, "distractors": 1,
        "like": 1.0, "templates": {"functions/query": "query.jinja"},
    }  # fmt: skip
    teacher = Path(posttrain.__file__).parent / "tiny" / "teacher"
    job = synthesize(str(teacher), {"tool_use": entry}, temperature=0.0, max_new_tokens=64)
    rows = read_table(job.folder, "rows")
    assert rows
    for row in rows:
        call = functions_of(row.messages[1])[0]
        city = call["arguments"]["city"]
        assert city in row.messages[0]["content"] and city in row.messages[-1]["content"]
        assert row.messages[2]["content"].removeprefix("It is ") in row.messages[-1]["content"]


def test_the_key_tells_the_version_of_python_and_shares_are_checked(tmp_path):
    config = GenerateConfig(prompts={"t": {"from": "functions", "rows": 1}})
    wired = SPEC.wire(config, Files("teacher", tmp_path))
    assert wired["pipeline-t"].fingerprint.startswith("2:python 3.")
    with pytest.raises(ValueError, match="give the kinds weights"):
        FunctionsConfig(from_="functions", rows=1, kinds={"simple": 0})
    expected = PIPELINE.estimate("t", FunctionsConfig(rows=100, kinds={"simple": 1}, pairs=0.2), {})
    assert (expected.made["rows"].rows, expected.made["preferences"].rows, expected.asked) == (100, 10, 450 + 60)
