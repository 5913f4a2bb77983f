"""Calls by BFCL's rules, worked by hand."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.checks.calls import _one_to_one
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check


def made(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    functions = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def wanted(*calls: tuple[str, dict[str, Any]]) -> Check:
    return Check("call_rules", {"calls": [{"name": name, "arguments": accepted} for name, accepted in calls]})


@pytest.mark.parametrize(
    ("accepted", "given", "reason"),
    [
        ({"city": ["Berlin", "Berlin, DE"]}, {"city": "berlin-DE"}, "right"),
        ({"city": ["Berlin"]}, {"city": "Bonn"}, "parameter city has another value"),
        ({"city": ["Berlin"], "unit": ["c", ""]}, {"city": "Berlin"}, "right"),
        ({"city": ["Berlin"], "unit": ["c"]}, {"city": "Berlin"}, "parameter unit is missing"),
        ({"city": ["Berlin"]}, {"city": "Berlin", "unit": "c"}, "parameter unit is not wanted"),
        ({"x": [2.0]}, {"x": 2}, "right"),
        ({"x": [2]}, {"x": 2.0}, "parameter x has another value"),
        ({"x": [1]}, {"x": True}, "parameter x has another value"),
        ({"x": [True]}, {"x": 1}, "parameter x has another value"),
        ({"x": [2]}, {"x": "2"}, "parameter x has another value"),
        ({"x": ["it's"]}, {"x": 'it"s'}, "right"),
        ({"x": [["a b", "c"]]}, {"x": ["A-B", "c"]}, "right"),
        ({"x": [["a", "b"]]}, {"x": ["b", "a"]}, "parameter x has another value"),
        ({"x": [{"a": [1, 2], "b": ["", 3]}]}, {"x": {"a": 2}}, "right"),
        ({"x": [{"a": [1, 2]}]}, {"x": {"a": 3}}, "parameter x has another value"),
        ({"x": [{"a": [1]}]}, {"x": {"a": 1, "c": 1}}, "parameter x has another value"),
        ({"x": [None]}, {"x": None}, "right"),
    ],
)
def test_one_call(accepted: dict[str, Any], given: dict[str, Any], reason: str) -> None:
    verdict = grade(wanted(("f", accepted)), made(("f", given)))
    assert (verdict.reason, verdict.value) == (reason, 1.0 if reason == "right" else 0.0)


def test_names_and_counts() -> None:
    check = wanted(("f", {"x": [1]}), ("g", {}))
    assert grade(check, made(("g", {}), ("f", {"x": 1}))).value == 1.0
    assert grade(check, made(("f", {"x": 1}))).reason == "1 calls, 2 wanted"
    assert grade(check, made(("f", {"x": 1}), ("h", {}))).reason == "another function"
    assert grade(check, made(("f", {"x": 2}), ("g", {}))).reason == "parameter x has another value"
    assert grade(check, {"role": "assistant", "content": "f(1)"}).reason == "no call"
    assert grade(wanted(), {"role": "assistant", "content": "no tool fits"}).value == 1.0
    assert grade(wanted(), made(("f", {}))).value == 0.0


def test_parallel_calls_are_matched_even_where_the_first_fit_is_the_wrong_one() -> None:
    check = wanted(("f", {"x": [1, 2]}), ("f", {"x": [1]}))
    assert grade(check, made(("f", {"x": 1}), ("f", {"x": 2}))).value == 1.0
    assert grade(check, made(("f", {"x": 2}), ("f", {"x": 2}))).value == 0.0


@given(
    st.integers(0, 4).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_matching_is_that_of_trying_every_order(fits: list[list[bool]]) -> None:
    tried = any(all(fits[row][column] for row, column in enumerate(order)) for order in permutations(range(len(fits))))
    assert _one_to_one(fits) == tried
