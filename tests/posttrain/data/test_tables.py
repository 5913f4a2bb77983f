"""What is written to a table comes back as it was, however tools, arguments and texts look."""

import hashlib
from dataclasses import MISSING, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.data.rows import Check, Pair, Prompt, Row
from posttrain.data.tables import iter_groups, read_table, write_table
from posttrain.errors import UserError

TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
TOOLS = st.builds(
    lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}}, TEXTS, OBJECTS
)
CALLS = st.builds(
    lambda name, args: {"type": "function", "function": {"name": name, "arguments": args}}, TEXTS, OBJECTS
)
ANSWERS = st.builds(
    lambda text, calls, train: {"role": "assistant", "content": text, "tool_calls": calls, "train": train},
    TEXTS, st.lists(CALLS, max_size=3), st.booleans(),
)  # fmt: skip
MESSAGES = st.lists(st.builds(lambda text: {"role": "user", "content": text}, TEXTS) | ANSWERS, min_size=1, max_size=4)
NUMBERS = st.none() | st.floats(allow_nan=False)
ABOUT = {
    "capability": TEXTS, "language": TEXTS, "source": TEXTS, "tools": st.lists(TOOLS, max_size=3).map(tuple),
    "parents": st.lists(TEXTS, max_size=2).map(tuple), "made_by": OBJECTS,
}  # fmt: skip
ROWS = st.builds(Row, messages=MESSAGES.map(tuple), reward=NUMBERS, labels=OBJECTS, **ABOUT)
PROMPTS = st.builds(Prompt, messages=MESSAGES.map(tuple), check=st.none() | st.builds(Check, TEXTS, OBJECTS), **ABOUT)
PAIRS = st.builds(
    Pair, prompt=MESSAGES.map(tuple), chosen=ANSWERS, rejected=ANSWERS, margin=NUMBERS,
    rating=st.sampled_from([None, "better", "edited"]), **ABOUT,
)  # fmt: skip


@pytest.mark.parametrize(("table", "some"), [("rows", ROWS), ("prompts", PROMPTS), ("pairs", PAIRS)])
def test_every_row_survives_a_write_and_a_read(tmp_path, table, some):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(some, max_size=4))
    def survives(rows):
        assert write_table(tmp_path, table, rows) == len(rows)
        assert read_table(tmp_path, table) == rows

    survives()


def row(text, **more):
    return Row(({"role": "user", "content": text}, {"role": "assistant", "content": "x"}), "a", **more)


def test_an_id_is_the_hash_of_what_is_trained_and_of_nothing_else():
    text = '[[{"content":"Hi","role":"user"},{"content":"x","role":"assistant"}],[]]'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert row("Hi").id == row("Hi", source="elsewhere", reward=1.0, made_by={"round": 2}).id == expected
    tool = {"type": "function", "function": {"name": "f"}}
    assert len({row("Hi").id, row("Ho").id, row("Hi", tools=(tool,)).id}) == 3
    assert row("Hi", tools=({"function": {"name": "f"}, "type": "function"},)).id == row("Hi", tools=(tool,)).id


def test_groups_are_bounded_in_rows_and_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("posttrain.data.tables.GROUP_ROWS", 3)
    monkeypatch.setattr("posttrain.data.tables.GROUP_BYTES", 2_000)
    write_table(tmp_path, "rows", [row(f"{number}") for number in range(7)] + [row("long " * 500), row("last")])
    assert [len(group) for group in iter_groups(tmp_path, "rows", ["id"])] == [3, 3, 2, 1]


def test_a_column_added_later_has_its_default_in_older_tables(tmp_path):
    write_table(tmp_path, "rows", [row("Hi", labels={"quality": 1})])
    path = tmp_path / "rows.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["labels"]), path)
    assert read_table(tmp_path, "rows") == [replace(row("Hi"), labels={})]
    assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(Row)[2:])


def test_a_table_that_is_not_there_is_a_sentence(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"has no table 'rows'; it holds \['other'\]"):
        read_table(tmp_path, "rows")
