"""The last number of an answer, and mathematics whatever its form."""

import os
import threading
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.checks import mathematics
from posttrain.checks.numbers import last_number
from posttrain.checks.verifiers import Verdict, grade
from posttrain.data.rows import Check
from posttrain.errors import UserError


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The total is 1,234.50 dollars.", "1234.50"),
        ("12 apples, or .5 of them", "0.5"),
        ("It is -3.", "-3"),
        ("3-4", "4"),
        ("6e3 metres", "6e3"),
        ("10:30", "30"),
        ("version v2", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "so {:,}.", "({})", "= {:+d}", "${:,}$ in all"]))
def test_any_whole_number_is_read_back(number: int, form: str) -> None:
    assert last_number(form.format(number)) == number


@pytest.mark.parametrize(
    ("args", "text", "value"),
    [
        ({"answer": 7}, "1 + 6 = 7", 1.0),
        ({"answer": 7}, "7.0", 1.0),
        ({"answer": 7}, "7.01", 0.0),
        ({"answer": 0.3}, "0.30", 1.0),
        ({"answer": 100, "relative": 0.01}, "about 101", 1.0),
        ({"answer": 100, "tolerance": 0.5}, "about 101", 0.0),
        ({"answer": 7}, "seven", 0.0),
    ],
)
def test_numeric(args: dict[str, float], text: str, value: float) -> None:
    assert grade(Check("numeric", args), says(text)).value == value


HALF = Check("math", {"answers": ["\\frac{1}{2}"]})


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        (HALF, "so it is $\\frac{2}{4}$.", 1.0),
        (HALF, "\\boxed{0.5}", 1.0),
        (HALF, "I tried 2, but it is \\boxed{\\dfrac12}", 1.0),
        (HALF, "1/3", 0.0),
        (HALF, "", 0.0),
        (Check("math", {"answers": ["x^2+2x+1"]}), "$(x+1)^2$", 1.0),
        (Check("math", {"answers": ["x^2+2x+1"]}), "$(x+2)^2$", 0.0),
        (Check("math", {"answers": ["\\{1, 2\\}", "3"]}), "$3$", 1.0),
        (Check("math", {"answers": ["\\sqrt{8}"]}), "$2\\sqrt{2}$", 1.0),
    ],
)
def test_equal_expressions_are_equal(check: Check, text: str, value: float) -> None:
    assert grade(check, says(text)).value == value


def test_mathematics_works_in_a_thread_where_signals_do_not() -> None:
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(grade(HALF, says("0.5"))))
    thread.start()
    thread.join()
    assert found[0].value == 1.0


def test_what_takes_too_long_has_no_grade_and_the_next_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grade(HALF, says("0.5")).value == 1.0
    monkeypatch.setattr(mathematics, "SECONDS", 1.0)
    assert grade(HALF, says("9**9**9**9")) == Verdict(None, "the comparison took too long")
    monkeypatch.undo()
    assert grade(HALF, says("0.5")).value == 1.0


def test_an_answer_of_the_check_that_is_no_mathematics_is_a_sentence() -> None:
    with pytest.raises(UserError, match="is no mathematics"):
        grade(Check("math", {"answers": ["\\begin{"]}), says("1"))


def test_a_missing_package_is_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'posttrain\[math\]'"):
        grade(HALF, says("1"))


def test_the_process_is_not_left_behind() -> None:
    assert grade(HALF, says("0.5")).value == 1.0
    process = mathematics._SERVER._process
    assert process is not None
    mathematics._SERVER._end()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
