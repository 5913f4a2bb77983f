"""What drift reads of answers."""

import pytest

from eval.drift import MEASURES, in_language
from posttrain.data.rows import Prompt, Response


@pytest.mark.parametrize(
    ("language", "text", "same"),
    [
        ("en", "The train from London was late, so nobody saw the beginning of the play.", True),
        ("fr", "The train from London was late, so nobody saw the beginning of the play.", False),
        ("th", "นี่คือเรื่องสั้นเกี่ยวกับวันฝนตกที่ไม่มีใครอยากกลับบ้าน", True),
        ("en", '["silver", "window"]', None),  # words alone: the likeliest language is a guess
        ("en", "42", None),
        ("xx", "The train from London was late, so nobody saw the beginning of the play.", None),
    ],
)
def test_an_answers_language_counts_where_it_can_be_told(language, text, same):
    prompt = Prompt(({"role": "user", "content": "Say it."},), "general", language, id="p")
    response = Response("p", 0, text, "stop", 3, None)
    assert in_language(prompt, response) is same
    assert MEASURES["language"](prompt, response) == (None if same is None else float(not same))
