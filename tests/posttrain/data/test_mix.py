"""The mix by weights: hand-worked counts, shortfalls said, and nothing that depends on the order of inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from posttrain.data.mix import asked_counts, run
from posttrain.data.mix_spec import MixConfig
from posttrain.data.rows import Row
from posttrain.data.tables import read_table, write_table
from posttrain.errors import UserError
from posttrain.stages import Job


def rows(capability, count, start=0):
    return [
        Row(({"role": "user", "content": f"{capability} {i}"}, {"role": "assistant", "content": "x"}), capability)
        for i in range(start, start + count)
    ]


@pytest.fixture
def mix(tmp_path):
    """Run the stage over lists of rows, each its own artifact."""

    def mix(sources, seed=1, **config):
        folders = []
        for source in sources:
            folders.append(tmp_path / f"in-{len(list(tmp_path.iterdir()))}")
            folders[-1].mkdir()
            write_table(folders[-1], "rows", source)
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        job = Job(MixConfig(**config), {"rows": folders}, out, seed)
        run(job)
        return job

    return mix


def ids(job):
    return [row.id for row in read_table(job.folder, "rows")]


def test_shares_by_weight_and_a_shortfall_that_is_said(mix):
    job = mix([rows("a", 50), rows("b", 5) + rows("c", 9)], weights={"a": 2, "b": 1, "d": 1}, rows=40)
    assert job.summary["capabilities"] == {
        "a": {"available": 50, "asked": 20, "obtained": 20},
        "b": {"available": 5, "asked": 10, "obtained": 5},
        "d": {"available": 0, "asked": 10, "obtained": 0},
    }
    assert job.summary["shortfall"] == 15
    assert job.summary["drops"] == {"duplicate": 0, "no weight": 9, "beyond its share": 30}
    assert job.rows == {"rows": 25}


def test_rows_zero_takes_the_most_that_keeps_the_shares(mix):
    job = mix([rows("a", 50) + rows("b", 10)], weights={"a": 3, "b": 1})
    assert {name: part["obtained"] for name, part in job.summary["capabilities"].items()} == {"a": 30, "b": 10}
    assert job.summary["shortfall"] == 0


def test_without_weights_every_different_row_is_taken(mix):
    job = mix([rows("a", 7), rows("a", 3, start=5), rows("b", 2)])
    assert job.rows == {"rows": 10}
    assert job.summary["drops"] == {"duplicate": 2, "no weight": 0, "beyond its share": 0}


def test_the_order_of_inputs_does_not_matter_and_the_seed_does(mix):
    sources = [rows("a", 40), rows("b", 40)]
    first = ids(mix(sources, rows=20, weights={"a": 1, "b": 1}))
    assert first == ids(
        mix([list(reversed(source)) for source in reversed(sources)], rows=20, weights={"b": 1, "a": 1})
    )
    other = ids(mix(sources, seed=2, rows=20, weights={"a": 1, "b": 1}))
    assert len(other) == 20
    assert set(other) != set(first)


def test_a_larger_mix_extends_a_smaller_one(mix):
    source = [rows("a", 40)]
    assert set(ids(mix(source, rows=10))) < set(ids(mix(source, rows=20)))


def test_an_empty_mix_says_what_was_asked_and_what_is_there(mix):
    with pytest.raises(UserError, match=r"asked for tool_use, and there are \{'a': 3\}"):
        mix([rows("a", 3)], weights={"tool_use": 1})
    with pytest.raises(UserError, match="no rows at all"):
        mix([[]])


@pytest.mark.parametrize("weights", [{"a": -1}, {"a": float("nan")}, {"a": float("inf")}, {"a": 0}])
def test_weights_that_are_none(weights):
    with pytest.raises(ValidationError, match="weight"):
        MixConfig(weights=weights)


NAMES = st.sampled_from("abcdef")


@given(
    st.dictionaries(NAMES, st.floats(0.01, 100), min_size=1), st.dictionaries(NAMES, st.integers(0, 300), min_size=1)
)
def test_rows_zero_never_asks_a_capability_for_more_than_it_has(weights, available):
    for capability, asked in asked_counts(weights, available, 0).items():
        if available.get(capability):
            assert asked <= available[capability]
