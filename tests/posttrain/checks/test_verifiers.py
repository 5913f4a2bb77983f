"""Verifiers against hand-worked answers: what is right, what is wrong and why, and what cannot be graded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.checks.verifiers import VERIFIERS, arguments, grade, plain
from posttrain.data.rows import Check, Message
from posttrain.errors import UserError


def says(text: str) -> Message:
    return {"role": "assistant", "content": text}


def calls(*made: tuple[str, dict[str, object]]) -> Message:
    functions = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in made]
    return {"role": "assistant", "content": "", "tool_calls": functions}


EXACT = Check("exact", {"answers": ["Anna has 3 apples.", "3 apples"]})
CALLS = Check(
    "tool_calls",
    {"calls": [{"name": "book", "arguments": {"city": "Oslo", "people": 2}}, {"name": "send", "arguments": {}}]},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Anna has 3 apples.", 1.0),
        ("  Anna has\n3  apples. ", 1.0),
        ("3 apples", 1.0),
        ("Anna has 4 apples.", 0.0),
        ("anna has 3 apples.", 0.0),
        ("Anna has 3 apples. Done.", 0.0),
        ("", 0.0),
    ],
)
def test_exact_compares_text_blanks_aside(text: str, value: float) -> None:
    assert grade(EXACT, says(text)).value == value


def test_exact_takes_composed_and_decomposed_letters_as_one() -> None:
    assert plain("cafe\u0301") == plain("caf\u00e9")


def test_exact_refuses_a_call_with_the_right_text() -> None:
    assert grade(EXACT, {**calls(("f", {})), "content": "3 apples"}).value == 0.0


def test_calls_are_right_in_any_order_and_with_numbers_of_any_kind() -> None:
    book = ("book", {"people": 2.0, "city": "Oslo"})
    assert grade(CALLS, calls(book, ("send", {}))).value == 1.0
    assert grade(CALLS, calls(("send", {}), book)).value == 1.0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (says('{"name": "send"}'), "no call"),
        (calls(("send", {})), "1 calls, 2 wanted"),
        (calls(("send", {}), ("send", {})), "another function"),
        (calls(("send", {}), ("book", {"city": "Oslo", "people": 3})), "other arguments"),
        (calls(("send", {}), ("book", {"city": "Oslo", "people": "2"})), "other arguments"),
        (calls(("send", {}), ("book", {"city": "Oslo", "people": True})), "other arguments"),
    ],
)
def test_wrong_calls_say_why(message: Message, reason: str) -> None:
    verdict = grade(CALLS, message)
    assert (verdict.value, verdict.reason) == (0.0, reason)


ITEMS = {"rule": "items", "items": ["amber", "river"]}


@pytest.mark.parametrize(
    ("rules", "text", "value"),
    [
        ([{**ITEMS, "layout": "commas"}], "amber, river", 1.0),
        ([{**ITEMS, "layout": "commas"}], "AMBER, River", 1.0),
        ([{**ITEMS, "layout": "commas"}], "river, amber", 0.0),
        ([{**ITEMS, "layout": "commas"}], "amber,river", 0.0),
        ([{**ITEMS, "layout": "spaces"}], "amber river", 1.0),
        ([{**ITEMS, "layout": "lines"}], "amber\nriver", 1.0),
        ([{**ITEMS, "layout": "bullets"}], "- amber\n- river", 1.0),
        ([{**ITEMS, "layout": "bullets"}], "- amber\nriver", 0.0),
        ([{**ITEMS, "layout": "numbered"}], "1. amber\n2. river", 1.0),
        ([{**ITEMS, "layout": "numbered"}], "1. amber\n3. river", 0.0),
        ([{**ITEMS, "layout": "json"}], '["amber", "river"]', 1.0),
        ([{**ITEMS, "layout": "json"}], '["amber", "river"', 0.0),
        ([{**ITEMS, "layout": "json"}], '["amber", 1]', 0.0),
        ([{**ITEMS, "layout": "commas", "before": "Done."}], "amber, river\nDone.", 1.0),
        ([{**ITEMS, "layout": "commas"}], "amber, river\nDone.", 0.0),
        ([{"rule": "case", "case": "upper", "before": "Done."}], "AMBER\nDone.", 1.0),
        ([{"rule": "case", "case": "upper"}], "Amber", 0.0),
        ([{"rule": "case", "case": "lower"}], "amber", 1.0),
        ([{"rule": "starts_with", "text": "Dear"}, {"rule": "ends_with", "text": "Done."}], "Dear you. Done.", 1.0),
        ([{"rule": "starts_with", "text": "Dear"}, {"rule": "ends_with", "text": "Done."}], "Dear you.", 0.0),
        ([{"rule": "contains", "words": ["River"]}, {"rule": "excludes", "words": ["sea"]}], "a river", 1.0),
        ([{"rule": "excludes", "words": ["sea"]}], "the Sea", 0.0),
        ([{"rule": "words", "least": 2, "most": 3}], "one two three", 1.0),
        ([{"rule": "words", "least": 2, "most": 3}], "one two three four", 0.0),
        ([{"rule": "lines", "count": 2}], "one\ntwo", 1.0),
        ([{"rule": "lines", "count": 2}], "one", 0.0),
        ([], "", 0.0),
    ],
)
def test_constraints_hold_strictly(rules: list[dict[str, object]], text: str, value: float) -> None:
    assert grade(Check("constraints", {"rules": rules}), says(text)).value == value


def test_a_message_that_is_no_answer_has_no_grade() -> None:
    assert grade(EXACT, {"role": "user", "content": "3 apples"}).value is None


@pytest.mark.parametrize(
    ("check", "says_what"),
    [
        (Check("exakt", {}), "exact"),
        (Check("exact", {"answer": "x"}), "answers"),
        (Check("constraints", {"rules": [{"rule": "rhymes"}]}), "starts_with"),
        (Check("exact", {"answers": 5}), r"args.answers: .*, got 5\); mend check.args"),
        (Check("exact", {"answers": "3 apples"}), "args.answers"),
        (Check("exact", {"answers": []}), "at least 1 item"),
        (Check("exact", {"answers": ["x", 3]}), r"args.answers.1: .*valid string, got 3"),
        (Check("exact", {"answers": ["x"], "answer": "y"}), "args.answer: extra"),
        (Check("tool_calls", {"calls": [{"name": "f"}]}), "args.calls.0.arguments: field required"),
        (Check("tool_calls", {"calls": {"name": "f"}}), "args.calls"),
        (Check("constraints", {"rules": [{"rule": "words"}]}), "neither least nor most"),
        (Check("constraints", {"rules": [{"rule": "items", "items": ["a"], "layout": "table"}]}), "layout"),
        (Check("constraints", {"rules": ["short"]}), "args.rules.0"),
        (Check("numeric", {"answer": "7"}), "args.answer"),
        (Check("numeric", {"answer": 7, "tolerance": -1}), "args.tolerance"),
        (Check("python_tests", {"tests": []}), "args.tests"),
        (Check("language", {"language": "xx"}), "'en', 'de'"),
    ],
)
def test_a_check_that_cannot_grade_is_a_user_error_that_names_the_way_out(check: Check, says_what: str) -> None:
    with pytest.raises(UserError, match=says_what):
        grade(check, says("x"))


@given(
    st.sampled_from(sorted(VERIFIERS)),
    st.dictionaries(
        st.sampled_from(["answers", "answer", "calls", "rules", "tests", "needles", "language"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=3,
    ),
)
def test_no_arguments_at_all_give_a_traceback(name: str, args: dict[str, object]) -> None:
    try:
        arguments(Check(name, args))
    except UserError as error:
        assert name in str(error)


@pytest.mark.parametrize(
    ("args", "text", "value"),
    [
        ({"needles": ["4711"]}, "The code is 4711.", 1.0),
        ({"needles": ["4711"]}, "The code is 47110.", 0.0),
        ({"needles": ["Blue  Door"], "others": ["red door"]}, "a blue\ndoor", 1.0),
        ({"needles": ["blue door"], "others": ["red door"]}, "a blue door or a red door", 0.0),
        ({"needles": ["a.b"]}, "a.b", 1.0),
        ({"needles": ["a.b"]}, "axb", 0.0),
        ({"needles": ["4711", "0815"]}, "4711", 0.0),
        ({"needles": ["4711"]}, "", 0.0),
    ],
)
def test_needles_are_whole_words_without_the_others(args: dict[str, list[str]], text: str, value: float) -> None:
    assert grade(Check("needle", args), says(text)).value == value


def test_the_language_of_an_answer() -> None:
    german = Check("language", {"language": "de"})
    assert grade(german, says("Der Zug fährt um neun Uhr.")).value == 1.0
    assert grade(german, says("The train leaves at nine.")).value == 0.0
    assert grade(german, says("42")).value is None
    assert grade(german, calls(("f", {}))).value == 0.0


def test_a_needle_is_found_between_thai_letters_which_have_no_blanks_between_words():
    check = Check("needle", {"needles": ["4711"]})
    assert grade(check, {"role": "assistant", "content": "รหัสคือ4711ครับ"}).value == 1.0
    assert grade(check, {"role": "assistant", "content": "code47112"}).value == 0.0
