"""Suites from people's files, in the public formats, and everything that can be wrong with one."""

import pytest

from posttrain.data.rows import Check
from posttrain.errors import UserError


def test_mgsm_records_get_the_public_prefix_of_their_language(make):
    records = [
        {"question": "Wie viele?", "answer_number": 18, "language": "de", "cluster": "1"},
        {"question": "How many?", "answer": "1,018", "language": "en", "cluster": "1"},
        {"question": "Kiasi gani?", "answer": "3", "language": "es"},
    ]
    _, prompts = make("multilingual", records, languages=["de", "en"])
    german, english = sorted(prompts, key=lambda prompt: prompt.language)
    assert german.check == Check("final_number", {"answer": 18, "prefix": "Antwort"})
    assert english.check == Check("final_number", {"answer": 1018, "prefix": "Answer"})
    assert german.messages[0]["content"].startswith("Löse dieses Mathematikproblem.")
    assert german.made_by["cluster"] == english.made_by["cluster"] == "1"


def test_bfcl_records_keep_optional_marks_and_get_json_types(make):
    function = {"name": "area", "description": "d", "parameters": {
        "type": "dict", "properties": {"base": {"type": "float"}, "unit": {"type": "string"}}, "required": ["base"],
    }}  # fmt: skip
    truth = [{"area": {"base": [10.0], "unit": ["cm", ""]}}]
    records = [
        {"question": [[{"role": "user", "content": "Area?"}]], "function": [function], "ground_truth": truth,
         "category": "simple"},
        {"question": [[{"role": "user", "content": "Hello?"}]], "function": [function], "category": "irrelevance"},
    ]  # fmt: skip
    _, prompts = make("tool_use", records)
    irrelevant, simple = sorted(prompts, key=lambda prompt: prompt.made_by["category"])
    assert simple.check.args == {"calls": [{"name": "area", "arguments": {"base": [10.0], "unit": ["cm", ""]}}]}
    assert simple.tools[0]["function"]["parameters"]["properties"]["base"]["type"] == "number"
    assert irrelevant.check.args == {"calls": []}


def test_bfcl_answers_are_read_with_the_functions_parameters(make):
    """A float's integer, a required parameter marked as optional, and a parameter that the function does not have."""
    function = {"name": "area", "description": "d", "parameters": {
        "type": "dict", "properties": {"base": {"type": "float"}, "height": {"type": "integer"}}, "required": ["base"],
    }}  # fmt: skip
    truth = [{"area": {"base": [10, ""], "height": [3, ""], "colour": ["red", ""]}}]
    record = {"question": [[{"role": "user", "content": "Area?"}]], "function": [function], "ground_truth": truth}
    _, (prompt,) = make("tool_use", [record])
    (call,) = prompt.check.args["calls"]
    assert call["arguments"] == {"base": [10.0], "height": [3, ""]}
    assert type(call["arguments"]["base"][0]) is float


def test_gsm8k_and_math_answers_are_found(make):
    records = [
        {"question": "Eggs?", "answer": "She sells 9 for $2.\n#### 1,018"},
        {"problem": "Half?", "solution": "So it is $\\boxed{\\frac{1}{2}}$."},
    ]
    _, prompts = make("math", records)
    assert {prompt.check.args["answers"][0] for prompt in prompts} == {"1018", "\\frac{1}{2}"}


def test_humaneval_and_mbpp_records_run_their_own_solution(make):
    records = [
        {"prompt": "def twice(x):\n", "entry_point": "twice", "canonical_solution": "    return 2 * x\n",
         "test": "def check(candidate):\n    assert candidate(4) == 8\n"},
        {"text": "Write half(x).", "code": "def half(x):\n    return x / 2", "test_list": ["assert half(4) == 2"]},
    ]  # fmt: skip
    _, prompts = make("code", records)
    assert len(prompts) == 2
    with pytest.raises(UserError, match=r"its own reference answer scores 0\.0 by python_tests"):
        make("code", [{**records[1], "code": "def half(x):\n    return x"}], "wrong")


def test_ifeval_records_keep_their_instructions(make):
    record = {"prompt": "Write.", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
              "kwargs": [{}, {"num_words": None}]}  # fmt: skip
    _, (prompt,) = make("instructions", [record])
    assert prompt.check.args["instructions"] == [
        {"id": "punctuation:no_comma", "kwargs": {}}, {"id": "startend:quotation", "kwargs": {}},
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"has the instruction 'no:such', which is none of the 25"):
        make("instructions", [{**record, "instruction_id_list": ["no:such", "startend:quotation"]}], "wrong")


def test_choices_count_from_zero_or_by_letter(make):
    records = [
        {"question": "Largest?", "choices": ["1", "2", "3"], "answer": 2},
        {"question": "Smallest?", "choices": ["1", "2"], "answer": "a"},
    ]
    _, prompts = make("choices", records)
    assert {prompt.check.args["answer"] for prompt in prompts} == {"C", "A"}
    with pytest.raises(UserError, match="has 2 choices and the answer 5"):
        make("choices", [{**records[1], "answer": 5}], "wrong")


@pytest.mark.parametrize(
    ("scorer", "reference", "check"),
    [
        ("exact", "yes", {"answers": ["yes"]}),
        ("exact", ["yes", "y"], {"answers": ["yes", "y"]}),
        ("numeric", "1,200.5", {"answer": 1200.5}),
        ("recall", ["a1", "b2"], {"answers": ["a1", "b2"]}),
        ("short_answer", "Paris", {"answers": ["Paris"]}),
        ("tool_calls", {"name": "f", "arguments": {"x": 1}}, {"calls": [{"name": "f", "arguments": {"x": 1}}]}),
    ],
)
def test_a_file_of_ones_own_with_a_scorers_name_is_a_suite(make, scorer, reference, check):
    _, (prompt,) = make("prompts", [{"prompt": "Say it.", "reference": reference}], scorer=scorer)
    assert (prompt.check.name, prompt.check.args) == (scorer, check)
    assert (prompt.capability, prompt.made_by["suite"]) == ("mine", "prompts")


@pytest.mark.parametrize(
    ("suite", "records", "told"),
    [
        ("prompts", [], "the suite mine has no prompts; fill its file"),
        ("prompts", [{"prompt": "a", "reference": "x"}] * 2, r"mine.jsonl:2 asks the same as .*mine.jsonl:1"),
        ("prompts", [{"prompt": "a"}], "mine.jsonl:1 has no reference or answers or answer; mend"),
        ("prompts", [{"reference": "a"}], "mine.jsonl:1 has no prompt or question or messages"),
        ("safety", [{"prompt": "a", "expect": "maybe"}], "has expect 'maybe'; write refuse or answer"),
        ("multilingual", [{"question": "a", "answer": 1, "language": "xx"}], "has the language 'xx'"),
        ("knowledge", [{"question": "a", "answers": []}], "has no answers or answer or reference"),
        ("choices", [{"question": "a", "choices": ["1", "2", "3"], "answer": "BC"}], "has the answer 'BC'; write"),
        ("choices", [{"question": "a", "choices": ["1", "2", "3"], "answer": 1.7}], "has the answer 1.7; write"),
        ("choices", [{"question": "a", "choices": ["1", "2"], "answer": " "}], "has no answer;"),
        ("prompts", [{"prompt": "a", "check": {"name": "nope"}}], r"check 'nope' is no verifier"),
    ],
)
def test_a_faulty_file_is_told_in_a_sentence(make, suite, records, told):
    with pytest.raises(UserError, match=told):
        make(suite, records)


def test_a_length_that_cannot_be_met_is_told(make):
    with pytest.raises(UserError, match=r"256 tokens cannot be met by common_words within 2 percent"):
        make("long_context", n=1, tasks=["common_words"], lengths=[256])
