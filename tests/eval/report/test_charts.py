"""Charts: where a value is drawn, and that a name is never markup."""

from xml.etree import ElementTree

import pytest

from eval.report.charts import Axis, Dot, Series, bars, distributions, dots, histogram, label, lines, smooth, ticks


def parsed(figure: str) -> ElementTree.Element:
    """Raises ParseError where a chart is no well-formed markup."""
    return ElementTree.fromstring(figure)


def attributes(figure: str, kind: str, name: str) -> list[str | None]:
    return [item.get(name) for item in parsed(figure).iter() if item.tag == kind]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1.2, 1.2, [-1, -0.5, 0, 0.5, 1]),
        (0.31, 0.34, [0.31, 0.32, 0.33, 0.34]),
        (3, 3, [3]),
        (0, 2.4e6, [0, 5e5, 1e6, 1.5e6, 2e6]),
    ],
)
def test_ticks_are_round_numbers_within(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(found)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.05, "0.05"), (-2.5, "−2.5"), (1500, "1,500"), (1e-7, "1e-7"), (3e9, "3e9")]
)
def test_label(value: float, text: str) -> None:
    assert label(value) == text


def test_a_line_runs_between_the_axes() -> None:
    """x from 48 to 326; y with 6% of air: 0 to 100 is drawn from −6 to 106 on 156 down to 10."""
    chart = lines("loss", [Series("a", [(0, 0), (10, 100), (5, float("nan"))])], "step")
    assert attributes(chart, "polyline", "points") == ["48.0,148.2 326.0,17.8"]
    assert Axis(0, 4, 100, 200)(1) == 125.0
    assert lines("nothing", [Series("a", [])], "step") == ""


def test_a_single_point_is_a_dot_in_the_middle() -> None:
    chart = lines("one", [Series("a", [(3, 5)])], "step")
    assert attributes(chart, "circle", "cy") == ["83.0"]


def test_a_histogram_counts_shares_and_puts_what_lies_beyond_into_the_ends() -> None:
    shares = histogram([-9, 0.0, 0.5, 1.0, 9], 0, 1)
    assert (shares[0], shares[14], shares[-1], sum(shares)) == (0.4, 0.2, 0.4, pytest.approx(1))
    assert "chosen (3)" in distributions("rewards", [("chosen", [1, 2, 3])], "reward")
    assert distributions("rewards", [("none", [])], "reward") == ""
    assert distributions("rewards", [("equal", [2.0, 2.0])], "reward")


def test_the_running_mean_weighs_the_beginning_right() -> None:
    """0.1 · x against what has been: 1, then (0.09 · 1 + 0.1 · 3) / 0.19."""
    thin, calm = smooth([(1, 1), (2, 3)])
    assert thin == [(1, 1), (2, 3)]
    assert calm == [(1, pytest.approx(1)), (2, pytest.approx(0.39 / 0.19))]
    thin, _ = smooth([(n, n % 2) for n in range(1, 481)], most=240)
    assert len(thin) == 240
    assert {y for _, y in thin} == {0.5}


def test_dots_have_whiskers_as_long_as_their_interval() -> None:
    chart = dots("change", [("calls", [Dot(0, 5, 0, 10, "calls: 5")])], [], "points", zero=True)
    whisker = next(item for item in parsed(chart).iter("line") if item.get("class") == "whisker")
    circle = next(parsed(chart).iter("circle"))
    left, right, centre = float(whisker.get("x1")), float(whisker.get("x2")), float(circle.get("cx"))
    assert centre == pytest.approx((left + right) / 2)
    zero = next(item for item in parsed(chart).iter("line") if item.get("class") == "zero")
    assert float(zero.get("x1")) == left


def test_names_are_escaped_everywhere() -> None:
    evil = '"><script>alert(1)</script>'
    charts = [
        lines(evil, [Series(evil, [(0, 1)], dots=True), Series("b", [(1, 2)])], evil, evil, x_names={0.0: evil}),
        distributions(evil, [(evil, [1.0, 2.0]), ("b", [1.0])], evil),
        bars(evil, [(evil, 1.0, False)], evil),
        dots(evil, [(evil, [Dot(0, 1, 0, 2, evil)])], [evil], evil),
    ]
    for chart in charts:
        assert "<script" not in chart
        assert all(item.tag != "script" for item in parsed(chart).iter())
