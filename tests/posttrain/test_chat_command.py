"""Talking to a checkpoint: what happens when a conversation, or a line, is too long for it."""

import io

import pytest

from posttrain import terminal
from posttrain.errors import UserError
from posttrain.rounds.shipped import tiny_models_folder
from posttrain.rounds.view import console

LONG = "1 " * 1200
"""Over half of the 4,096 tokens that the tiny base reads: a digit and a blank are a token each."""


def said(monkeypatch: pytest.MonkeyPatch, *lines: str, new_tokens: int = 4) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    out = io.StringIO()
    terminal.chat(str(tiny_models_folder() / "base"), None, 0.0, new_tokens, console(out))
    return out.getvalue().splitlines()


def test_a_conversation_that_no_longer_fits_starts_again_with_the_line_that_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = said(monkeypatch, LONG)
    assert alone and "starting again" not in alone[0]
    told = "the conversation no longer fits the model: starting again from here"
    assert said(monkeypatch, LONG, LONG, LONG) == [*alone, told, *alone, told, *alone]


def test_a_line_that_cannot_fit_ends_the_chat_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a line of 2 characters and --max-new-tokens 5,000 do not fit the model's"):
        said(monkeypatch, "hi", new_tokens=5000)
