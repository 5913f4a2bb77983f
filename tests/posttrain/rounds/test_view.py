"""Numbers and tables as a person reads them."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.screen import RunScreen
from posttrain.rounds.shipped import find_recipe
from posttrain.rounds.view import clock, console, count, evaluation_table, grid, plan_table, result, size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (214, "214"),
        (2880, "2,880"),
        (9999, "9,999"),
        (81_000, "81k"),
        (1_250_000, "1.25M"),
        (3e12, "3T"),
        (999_700, "1M"),
        (4.2e15, "4.2P"),
    ],
)
def test_count(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (41, "0:41"), (250, "4:10"), (3725, "1:02:05"), (90_061, "1 d 01:01:01"), (59.6, "1:00")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(3 << 20, "3 MiB"), (1_930_000_000, "1.8 GiB"), (1150 << 30, "1.12 TiB"), (1 << 50, "1 PiB")],
)
def test_size(number: int, text: str) -> None:
    assert size(number) == text


def rate(correct: int, n: int, half: float) -> dict[str, float]:
    return {"n": n, "accuracy": correct / n, "low": correct / n - half, "high": correct / n + half}


BASE = {"title": "base", "overall": rate(248, 1000, 0.027), "capability": {"tool_use": rate(43, 100, 0.09)}}
SFT = {
    "title": "round 1 sft", "overall": rate(412, 1000, 0.03), "capability": {"tool_use": rate(40, 100, 0.095)},
    "change": {
        "overall": {"change": 0.164, "significant": True},
        "capability": {"tool_use": {"change": -0.03, "significant": False}},
    },
}  # fmt: skip


def printed(*parts: object) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=140, soft_wrap=True)
    for part in parts:
        console.print(part)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_only_a_change_beyond_its_interval_is_marked() -> None:
    head, overall, tool_use, legend = printed(evaluation_table([BASE, SFT]))
    assert head.split() == ["n", "base", "round", "1", "sft"]
    assert overall.split() == ["overall", "1,000", "24.8", "41.2", "▲", "±3.0"]
    assert tool_use.split() == ["tool_use", "100", "43.0", "40.0", "±9.5"]
    assert legend.startswith("▲ ▼ better, worse than the column before, 95% paired")


def test_a_fall_is_marked_too() -> None:
    change = {"overall": {"change": -0.1, "significant": True}, "capability": {}}
    assert "▼" in printed(evaluation_table([BASE, SFT | {"change": change}]))[1]


def test_the_lines_below_the_table() -> None:
    report = {
        "evaluations": [], "final": "round-1-gate-0123", "peak_memory": 2 << 30,
        "gates": [{
            "title": "round 1 gate", "passed": False, "failed": ["tool_use"], "kept": "previous",
            "change": {"overall": {"change": -0.031, "low": -0.05, "high": -0.012}},
        }],
        "reward_models": [
            {"title": "round 1 reward", "heldout": {"accuracy": 0.87, "low": 0.84, "high": 0.9, "n": 480}}
        ],
        "scores": [
            {"title": "round 1 score", "best_of_k": {"all": {"n": 90, "mean": 0.2, "any": 0.6, "combined": 0.44}}}
        ],
        "history": [{"wall_seconds": 252.2, "stage_seconds": 239.6, "other_seconds": 12.6}],
    }  # fmt: skip
    assert printed(*result(report, "runs/x")) == [
        "round 1 reward model: pair accuracy 0.87 (0.84–0.90, n=480)",
        "round 1 score: best of K 0.44 against mean 0.20, any 0.60, n=90",
        "round 1 gate did not hold for tool_use (-3.1, -5.0 to -1.2): keeps the previous",
        "checkpoint runs/x/final · report runs/x/report.json · 4 min 12 s (5% around the stages), 2 GiB peak",
    ]


def test_what_a_stage_warns_of_stands_below_its_line() -> None:
    path, out = find_recipe("dpo"), io.StringIO()
    trained = make_plan(load_recipe(path), path).nodes[-1]
    measured = {"seconds": 61.0, "tokens": 1200, "memory": 3 << 20}
    RunScreen(Console(file=out, width=100)).stage_ends(
        trained, {"measured": measured, "rows": {}, "summary": {"warning": "the chosen answers became less likely"}}
    )
    assert out.getvalue().splitlines() == [
        "round 1 ▸ dpo  1,200 tokens · 1:01 · 3 MiB", "  the chosen answers became less likely",
    ]  # fmt: skip


def test_no_number_is_cut_on_a_narrow_screen_and_control_characters_are_shown() -> None:
    out = io.StringIO()
    screen = console(out)
    screen.width = 20
    table = grid("stage", "~note", ">tokens")
    table.add_row("round-1/synthesize", "a note that may be folded away", "1,234,567")
    screen.print(table)
    screen.print(Text("\x1b]0;mine\x00\x1b[2J \u009b0m\ttab", style="bold"))
    assert "round-1/synthesize" in out.getvalue() and "1,234,567" in out.getvalue()
    assert "␛]0;mine␀␛[2J" in out.getvalue()
    assert not [mark for mark in "\x1b\x00\u009b" if mark in out.getvalue()]


@pytest.mark.parametrize("width", [110, 400])
def test_no_number_or_key_of_a_plan_is_cut_where_its_table_is_wide(width: int) -> None:
    path = find_recipe("llama-3.1-70b")
    plan = make_plan(load_recipe(path), path)
    out = io.StringIO()
    Console(file=out, width=width).print(plan_table(plan, "runs/x", dict.fromkeys((n.id for n in plan.nodes), "run")))
    shown = out.getvalue()
    assert "…" not in shown and "e+" not in shown
    assert all(node.key[:6] in shown and node.name in shown for node in plan.nodes)
    assert "TiB" in shown
