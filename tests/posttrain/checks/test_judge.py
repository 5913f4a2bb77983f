"""Verdicts of a judge: read strictly, in both orders, and counted where they cannot be read."""

from collections.abc import Callable

import pytest

from posttrain.checks.judge import (
    CRITERIA,
    TRIAL,
    Comparison,
    Preference,
    compare,
    rate,
    read_pair,
    read_point,
    together,
)
from posttrain.data.rows import Prompt, Response
from posttrain.errors import UserError

ITALY = Prompt(({"role": "user", "content": "Capital of Italy?"},), "general")
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}


def judge_that(says: Callable[[str], str], finish: str = "stop"):
    """An `ask` whose judge answers the prompt's text; `asked` collects what it was asked, by journal."""
    asked: dict[str, list[str]] = {}

    def ask(prompts, journal):
        texts = [prompt.messages[0]["content"] for prompt in prompts]
        asked.setdefault(journal, []).extend(texts)
        return [Response(p.id, 0, says(t), finish, 5, None) for p, t in zip(prompts, texts, strict=True)]

    return ask, asked


def shown(text: str, side: str) -> str:
    """The answer that stands as A or B in the judge's prompt."""
    return text.split(f"[answer {side}]\n")[1].split("\n\n[")[0]


def pairs(*answers: tuple[str, str]) -> list[Comparison]:
    return [Comparison(str(number), ITALY, *two) for number, two in enumerate(answers)]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It is fine.\nVerdict: A significantly better", Preference("first", "significantly_better")),
        ("**Verdict: B slightly better.**", Preference("second", "slightly_better")),
        ("verdict: [[A is marginally better]]", Preference("first", "marginally_better")),
        ("Verdict: B better", Preference("second", "better")),
        ("Verdict: tie", Preference("tie")),
        ("Verdict: A better\nNo, wait.\nVerdict: B better", Preference("second", "better")),
        ("Verdict: A", None),
        ("The verdict is that A is better", None),
        ("Verdict: A better than B", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_strictly(text: str, verdict: Preference | None) -> None:
    assert read_pair(text) == verdict


@pytest.mark.parametrize(
    ("text", "score"),
    [("Score: 7", 7.0), ("**Score: 10/10**", 10.0), ("Score: 3\nScore: 4", 4.0), ("Score: 11", None), ("7", None)],
)
def test_a_score_is_read_strictly(text: str, score: float | None) -> None:
    assert read_point(text) == score


def test_two_orders_agree_or_are_a_tie() -> None:
    strong, weak = Preference("first", "significantly_better"), Preference("first", "slightly_better")
    assert together(strong, weak) == weak
    assert together(strong, Preference("second", "better")) == Preference("tie")
    assert together(strong, Preference("tie")) == Preference("tie")


def test_a_judge_with_an_opinion_is_followed_whichever_answer_stands_first() -> None:
    ask, asked = judge_that(lambda text: f"Verdict: {'A' if shown(text, 'A') == 'Rome' else 'B'} better")
    judged = compare(pairs(("Rome", "Ulm"), ("Bonn", "Rome")), ask)
    assert judged.found == {"0": Preference("first", "better"), "1": Preference("second", "better")}
    assert judged.counts == {
        "pairs": 2, "unreadable_verdicts": 0, "order_decides": 0, "ties": 0, "first_shown_preferred": 2,
    }  # fmt: skip
    assert len(asked["judge"]) == 4
    assert all("Capital of Italy?" in text and CRITERIA in text for text in asked["judge"])


def test_a_judge_that_prefers_what_it_saw_first_decides_nothing() -> None:
    ask, _ = judge_that(lambda text: "Verdict: A better")
    judged = compare(pairs(("Rome", "Ulm")), ask)
    assert judged.found == {"0": Preference("tie")}
    assert (judged.counts["order_decides"], judged.counts["ties"]) == (1, 1)


def test_an_unreadable_verdict_is_none_and_counted() -> None:
    ask, _ = judge_that(lambda text: "Hm." if shown(text, "A") == "Ulm" else "Verdict: A better")
    judged = compare(pairs(("Rome", "Ulm"), ("Bonn", "Köln")), ask)
    assert judged.found == {"1": Preference("tie")}
    assert (judged.counts["unreadable_verdicts"], judged.counts["pairs_without_verdict"]) == (1, 1)


def test_a_cut_verdict_counts_as_unreadable_and_none_at_all_stops() -> None:
    ask, asked = judge_that(lambda text: "Verdict: A better", finish="length")
    with pytest.raises(UserError, match=r"none of the judge's first 16 answers .*the first ended by length"):
        compare(pairs(*((f"a{number}", f"b{number}") for number in range(TRIAL))), ask)
    assert list(asked) == ["judge-trial"]


def test_the_prompt_shows_tools_and_calls_and_nothing_of_it_is_taken_as_a_template() -> None:
    call = {"function": {"name": "look_up", "arguments": {"q": 1}}}
    prompt = Prompt(
        (
            {"role": "user", "content": "{{ look }} up {% x %}"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "42"},
        ),
        "tool_use", tools=(TOOL,),
    )  # fmt: skip
    ask, asked = judge_that(lambda text: "Score: 5")
    assert rate({"x": (prompt, "it is {{ 42 }}")}, ask, "be kind").found == {"x": 5.0}
    (text,) = asked["judge"]
    for part in (
        "{{ look }} up {% x %}",
        '{"name": "look_up", "arguments": {"q": 1}}',
        "[tool]\n42",
        "{{ 42 }}",
        "be kind",
    ):
        assert part in text


def test_a_built_in_tool_is_shown_by_its_type() -> None:
    prompt = Prompt(({"role": "user", "content": "Hi"},), "tool_use", tools=({"type": "brave_search"}, TOOL))
    ask, asked = judge_that(lambda text: "Score: 5")
    assert rate({"x": (prompt, "it is")}, ask).found == {"x": 5.0}
    assert '{"type": "brave_search"}' in asked["judge"][0]


def test_ratings_without_a_score_are_left_out() -> None:
    ask, _ = judge_that(lambda text: "Score: 9" if "Rome" in text else "no idea")
    judged = rate({"r": (ITALY, "Rome"), "u": (ITALY, "Ulm")}, ask)
    assert (judged.found, judged.counts) == ({"r": 9.0}, {"answers": 2, "unreadable_verdicts": 1})
