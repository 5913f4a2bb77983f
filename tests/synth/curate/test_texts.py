"""What counts as a word, a run, the prompt and the answer."""

import pytest

from posttrain.data.overlap import said, word_spans, words
from posttrain.data.rows import Row
from synth.curate.texts import prose, score_of, shingles, squeezed, text_of
from tests.synth.curate.conftest import ask, pair, row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World! (3.5)", ["hello", "world", "3", "5"]),
        ("3 + 4 - x_1", ["3", "+", "4", "-", "x_1"]),
        ("Straße, naïve «Été»", ["strasse", "naïve", "été"]),
        ("मुझे खेद है।", ["मुझे", "खेद", "है"]),
        ("ขอโทษ ok", ["ขอโท", "อโทษ", "ok"]),
        ("ไป", ["ไป"]),
        ("ﬁne １２", ["fine", "12"]),
        ("  ", []),
    ],
)
def test_words_in_several_scripts(text, expected):
    assert words(text) == expected


def test_spans_point_at_the_words_as_they_are_written():
    text = "Où EST ขอโทษ?"
    assert [(word, text[start:end]) for word, start, end in word_spans(text)] == [
        ("où", "Où"), ("est", "EST"), ("ขอโท", "ขอโท"), ("อโทษ", "อโทษ"),
    ]  # fmt: skip


def test_runs_of_words_keep_repeats_and_a_short_text_is_one_run():
    assert shingles("a b c a b c", 3) == ["a b c", "b c a", "c a b", "a b c"]
    assert shingles("a b", 3) == ["a b"]
    assert shingles("", 3) == [""]


def test_prompt_answer_and_both_of_rows_prompts_and_pairs():
    call = {"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": "ü"}}}
    asked = {"role": "user", "content": "Q"}
    item = Row((asked, {"role": "assistant", "content": "", "tool_calls": [call]}), "tool_use")
    assert text_of(item, "prompt") == "Q"
    assert text_of(item, "answer") == '{"arguments":{"a":"ü","b":1},"name":"f"}'
    assert said({"role": "assistant", "content": "Now", "tool_calls": [call]}).splitlines()[0] == "Now"
    assert text_of(ask("Q"), "both") == "Q"
    assert text_of(pair("Q", "yes", "no"), "both") == "Q\nyes\nno"


def test_prose_is_without_code_closed_or_not():
    assert prose("a `x!` b ```py\n!!\n``` c").split() == ["a", "b", "c"]
    assert prose("a ```\n!!").split() == ["a"]


def test_scores_are_the_reward_or_a_label_and_lowest_when_missing():
    item = row("x", reward=1.5, labels={"difficulty": 2, "topic": "maths"})
    assert [score_of(item, name) for name in ("reward", "difficulty", "topic", "none")] == [
        1.5, 2.0, float("-inf"), float("-inf"),
    ]  # fmt: skip
    assert score_of(pair("Q", "a", "b", margin=0.5), "margin") == 0.5


def test_squeezed_texts_differ_in_more_than_white_space_and_composition():
    assert squeezed(" e\u0301  a\n") == "é a"
