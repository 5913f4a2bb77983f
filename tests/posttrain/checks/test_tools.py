"""Tools that are really run: what they answer, and what they say to calls that cannot be run."""

import json

import pytest

from posttrain.checks import sandbox
from posttrain.checks.tools import calculator, check_name, fault_of, open_tools, python, run_calls, search
from posttrain.errors import UserError


def call(*calls):
    functions = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def results(messages):
    assert {message["role"] for message in messages} == {"tool"}
    return [json.loads(message["content"]) for message in messages]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2*3", {"result": 7}),
        ("2^10", {"result": 1024}),
        ("0.1 + 0.2", {"result": 0.3}),
        ("7/3", {"result": 7 / 3, "exact": "7/3"}),
        ("sqrt(8)", {"result": pytest.approx(2.8284271247), "exact": "2*sqrt(2)"}),
        ("sin(pi/6)", {"result": 0.5}),
        ("log(8, 2)", {"result": 3}),
        ("-17 // 5", {"result": -4}),
        ("-17 % 5", {"result": 3}),
        ("round(2.675, 2)", {"result": 2.68}),
        ("factorial(20)", {"result": 2432902008176640000}),
        ("gcd(12, 18) × lcm(4, 6) ÷ 2", {"result": 36}),
    ],
)
def test_the_calculator_is_exact(expression, result):
    assert calculator.run(expression) == result


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("sqrt(-1)", "no real value"),
        ("9**9**9**9", "too large"),
        ("10**5000", "too large"),
        ("factorial(1000)*factorial(1000)*factorial(1000)", "too large"),
        ("exp(exp(exp(100)))", "too large"),
        ("factorial(10**6)", "whole numbers up to 1,000"),
        ("1e400", "no number"),
        ("two + 2", "no number"),
        ("2 +", "no expression"),
        ("__import__('os').system('x')", "no number"),
        ("open('x')", "no number"),
        ("hypot(3, 4)", "there is no function hypot"),
        ("sqrt(1, 2)", "takes 1 numbers, not 2"),
        ("1+" * 400 + "1", "801 characters"),
    ],
)
def test_the_calculator_refuses_in_words(expression, why):
    with pytest.raises(ValueError, match=why):
        calculator.run(expression)


@pytest.mark.skipif(bool(sandbox.fault()), reason=f"no sandbox: {sandbox.fault()}")
def test_python_shows_what_is_printed_and_the_last_value():
    assert python.run("x = 3\nprint('so')\nx * 2") == {"stdout": "so\n6\n"}
    assert python.run("x = 3") == {"stdout": ""}
    failed = python.run("1/0")
    assert failed["error"] == "the program ended with code 1" and "ZeroDivisionError" in failed["stderr"]
    assert "SyntaxError" in python.run("def f(:")["stderr"]
    endless = python.run("while True: print('x' * 1000)")
    assert endless["error"] == "the program wrote too much and was ended" and len(endless["stdout"]) <= 1 << 14
    assert "Error" in python.run("import socket; socket.create_connection(('127.0.0.1', 80), 1)")["stderr"]
    with pytest.raises(ValueError, match="20,001 characters"):
        python.run("#" * 20_001)


def test_a_machine_without_sandbox_opens_no_python(monkeypatch):
    monkeypatch.setattr(sandbox, "fault", lambda: "there is no wall")
    with pytest.raises(UserError, match="tool python: there is no wall"):
        open_tools({"code_interpreter": "python"})


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "italy.txt").write_text("Rome is the capital of Italy.\n\nThe Tiber flows through it.")
    (folder / "germany.md").write_text("Berlin is the capital of Germany.")
    (folder / "thai.md").write_text("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย")
    (folder / "not.bin").write_bytes(b"\xff")
    return folder


def test_search_finds_the_best_passages(corpus):
    pytest.importorskip("bm25s")
    library = search.Library(corpus)
    assert [found["title"] for found in library.run("the capital of Germany", 1)["results"]] == ["germany"]
    assert library.run("Tiber")["results"] == [
        {"title": "italy", "text": "Rome is the capital of Italy.\n\nThe Tiber flows through it."}
    ]
    assert [found["title"] for found in library.run("เมืองหลวง")["results"]] == ["thai"]
    assert library.run("Paris") == {"results": []}
    assert library.run("") == {"results": []}


def test_search_reads_records_and_refuses_what_holds_no_text(tmp_path, corpus):
    pytest.importorskip("bm25s")
    records = tmp_path / "texts.jsonl"
    records.write_text('{"title": "A", "text": "one fish"}\n{"text": "two birds"}\n')
    assert search.Library(records).run("birds fish", 5)["results"] == [
        {"title": "A", "text": "one fish"}, {"title": "texts.jsonl:2", "text": "two birds"},
    ]  # fmt: skip
    records.write_text('{"title": "A"}\n')
    with pytest.raises(UserError, match=r"texts\.jsonl:1 has no text"):
        search.Library(records)
    with pytest.raises(UserError, match="is not there"):
        search.Library(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no"):
        search.Library(tmp_path / "empty")
    with pytest.raises(UserError, match="name a folder or file of texts at `corpus:`"):
        open_tools({"search": "search"})


def test_long_documents_are_cut_into_passages_without_losing_a_word():
    text = "\n\n".join([" ".join(f"w{i}" for i in range(450)), "short one", "another"])
    found = [own for _, own in search.passages("t", text)]
    assert [len(own.split()) for own in found] == [200, 200, 53]
    assert " ".join(found).split() == text.split()


def test_calls_are_run_in_order_and_faults_are_results(corpus):
    tools = open_tools({"calculator": "calculator", "wolfram_alpha": "calculator"})
    message = call(("calculator", {"expression": "2+2"}), ("wolfram_alpha", {"query": "3*3"}))
    assert results(run_calls(tools, message)) == [{"result": 4}, {"result": 9}]
    faults = call(("calculator", {}), ("calculator", {"expression": 4}), ("calculator", {"expr": "1"}),
                  ("calculator", {"expression": "1/0"}))  # fmt: skip
    assert [found["error"] for found in results(run_calls(tools, faults))] == [
        "arguments: 'expression' is a required property",
        "expression: 4 is not of type 'string'",
        "there is no parameter expr; there are expression",
        "a division by zero",
    ]
    assert run_calls(tools, call(("calculator", {"expression": "1"}), ("unknown", {}))) == []
    assert run_calls(tools, {"role": "assistant", "content": "4"}) == []


def weather(city, unit="C"):
    """A user's own function, found by its dotted name."""
    if city == "Atlantis":
        raise KeyError(city)
    return {"city": city, "unit": unit} if city != "long" else "x" * 9_000


def test_a_users_own_function_is_checked_against_the_declared_schema():
    tools = open_tools({"get_weather": f"{__name__}:weather"})
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
                  "required": ["city"]}  # fmt: skip
    declared = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    said = call(("get_weather", {"city": "Rome", "unit": "F"}), ("get_weather", {"city": "Rome", "unit": "K"}),
                ("get_weather", {"city": "Atlantis"}))  # fmt: skip
    assert results(run_calls(tools, said, declared)) == [
        {"city": "Rome", "unit": "F"}, {"error": "unit: 'K' is not one of ['C', 'F']"}, {"error": "'Atlantis'"},
    ]  # fmt: skip
    [long] = run_calls(tools, call(("get_weather", {"city": "long"})), declared)
    assert len(long["content"]) < 4_100 and long["content"].endswith("… (cut at 4,000 characters)")


def test_a_name_that_nothing_runs_is_refused():
    for wrong in ("weather", "no.such.module:run", "json", ""):
        with pytest.raises(UserError, match="tool get_weather: nothing runs it under the name"):
            check_name("get_weather", wrong)
    with pytest.raises(UserError, match="module json has no function nothing"):
        open_tools({"x": "json:nothing"})
    assert fault_of({"type": "function", "function": {"name": "f", "parameters": {"type": 3}}}, {}) .startswith(
        "the tool's schema is broken"
    )  # fmt: skip
