"""Rows that are too long: each policy does what it says and nothing else cuts a token."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.chat import Renderer
from posttrain.data.rows import Message, Pair, Row
from posttrain.train.batches import length, render_pair, render_row
from posttrain.train.overlength import fit, split, trained_ids, truncated
from posttrain.train.sft_spec import SftConfig

SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call(*numbers: int) -> Message:
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"n": n}}} for n in numbers]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result(text: str) -> Message:
    return {"role": "tool", "content": text}


ROW = Row(
    (SYSTEM, user("one " * 20), said("first"), user("two " * 20), said("second"), user("three"), said("third")),
    "general", source="talk",
)  # fmt: skip


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer.from_pretrained(tiny_model)


def tokens(renderer: Renderer, row: Row) -> int:
    return length(render_row(renderer, row))


def test_only_as_many_of_the_oldest_exchanges_go_as_must(renderer: Renderer) -> None:
    render = partial(render_row, renderer)
    whole = tokens(renderer, ROW)
    without_first = replace(ROW, messages=(SYSTEM, *ROW.messages[3:]))
    found = truncated(ROW, render, whole - 1)
    assert found is not None
    assert found[0] == without_first
    found = truncated(ROW, render, tokens(renderer, without_first) - 1)
    assert found is not None
    assert found[0].messages == (SYSTEM, user("three"), said("third"))
    assert found[0].id == ROW.id
    assert truncated(ROW, render, length(found[1]) - 1) is None


def test_a_row_with_other_trained_turns_is_not_cut(renderer: Renderer) -> None:
    """Cutting the oldest exchange would cut an answer that is trained."""
    assert truncated(ROW, partial(render_row, renderer, train="all"), tokens(renderer, ROW) - 1) is None


def test_a_pairs_prompt_is_cut_for_both_answers(renderer: Renderer) -> None:
    pair = Pair(ROW.messages[:-1], said("yes"), said("no " * 30), "general", source="talk")
    render = partial(render_pair, renderer)
    limit = length(render(pair)) - 1
    found = truncated(pair, render, limit)
    assert found is not None
    assert found[0].prompt == (SYSTEM, *ROW.messages[3:-1])
    assert (found[0].chosen, found[0].rejected, found[0].id) == (pair.chosen, pair.rejected, pair.id)
    assert trained_ids(found[1]) == trained_ids(render(pair))


def test_a_tool_result_stays_with_its_call() -> None:
    late = [call(1, 2), result("a"), user("and?"), result("b"), said("done"), user("bye"), said("bye")]
    head, exchanges = split([SYSTEM, user("go"), *late])
    assert head == [SYSTEM]
    assert exchanges == [[user("go"), *late[:5]], late[5:]]


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just("talk"), st.integers(1, 9)), st.tuples(st.just("call"), st.integers(1, 3))
    ), min_size=1, max_size=6,
)  # fmt: skip


@given(MESSAGES, st.booleans(), st.integers(0, 300))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_rows_keep_system_answer_and_whole_exchanges(
    renderer: Renderer, shape: list[tuple[str, int]], with_system: bool, less: int
) -> None:
    messages = [SYSTEM] if with_system else []
    for kind, size in shape:
        messages.append(user("word " * size))
        if kind == "call":
            messages += [call(*range(size)), *(result(f"r{n}") for n in range(size))]
        messages.append(said(f"answer {size}"))
    row = Row(tuple(messages), "general", tools=(TOOL,))
    render = partial(render_row, renderer)
    example = render(row)
    limit = max(1, length(example) - less)
    found = truncated(row, render, limit)
    if found is None:
        return
    shorter, fitted = found
    kept = list(shorter.messages)
    assert length(fitted) <= limit
    assert trained_ids(fitted) == trained_ids(example)
    assert not with_system or kept.pop(0) == SYSTEM
    assert kept == messages[-len(kept) :]
    assert kept[0]["role"] == "user"
    calls = sum(len(message.get("tool_calls", ())) for message in kept)
    assert calls == sum(message["role"] == "tool" for message in kept)


def test_the_ledger_counts_what_was_done_with_each_source(renderer: Renderer) -> None:
    short = Row((user("hi"), said("hello")), "general", source="short")
    long = [replace(ROW, source=source, id=source) for source in ("dropped", "cut", "refused")]
    limit, whole = tokens(renderer, ROW) - 1, tokens(renderer, ROW)
    policies = SftConfig(over_length={"dropped": "drop", "cut": "truncate_context", "absent": "drop"}).over_length
    fitted = fit([short, *long], partial(render_row, renderer), limit, policies)
    cut = length(fitted.examples[1])
    trained = sum(map(len, trained_ids(fitted.examples[1])))
    assert [row.id for row in fitted.rows] == [short.id, "cut", "refused"]
    assert fitted.refused == {"refused": f"{whole:,} tokens"}
    dropped, kept = fitted.ledger["dropped"], fitted.ledger["cut"]
    assert (dropped.rows, dropped.over_length, dropped.dropped, dropped.tokens_dropped) == (1, 1, 1, whole)
    assert (dropped.tokens, dropped.trained_tokens) == (0, 0)
    assert (kept.truncated, kept.tokens_cut, kept.tokens, kept.longest) == (1, whole - cut, cut, whole)
    assert kept.trained_tokens == trained
    assert fitted.ledger["absent"].rows == 0
    assert fitted.ledger["short"].over_length == 0
    assert (fitted.dropped, fitted.truncated) == ({"dropped"}, {"cut"})


def test_a_plain_word_is_the_policy_of_all_sources() -> None:
    assert SftConfig.model_validate({"over_length": "drop"}).over_length == {"others": "drop"}
