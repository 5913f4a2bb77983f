"""Mixes: hand-worked amounts, filters, shortfalls that are said, and nothing that depends on the order of inputs."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from posttrain.data.mix import asked_amounts, run
from posttrain.data.mix_spec import SPEC, MixConfig, Part
from posttrain.data.rows import EDITED, Pair, Row
from posttrain.data.tables import read_table, write_table
from posttrain.errors import UserError
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.rounds.shipped import shipped_recipes, tiny_models_folder
from posttrain.stages import Job


def row(text, capability, **more):
    return Row(({"role": "user", "content": text}, {"role": "assistant", "content": "x"}), capability, **more)


def rows(capability, count, start=0, **more):
    return [row(f"{capability} {i}", capability, **more) for i in range(start, start + count)]


def pair(text, capability="a", **more):
    chosen, rejected = ({"role": "assistant", "content": answer} for answer in ("yes", "no"))
    return Pair(({"role": "user", "content": text},), chosen, rejected, capability, **more)


@pytest.fixture
def mix(tmp_path):
    """Run the stage over lists of rows or pairs, each its own artifact."""

    def mix(sources, seed=1, table="rows", tokenizer=None, **config):
        folders = []
        for source in sources:
            folders.append(tmp_path / f"in-{len(list(tmp_path.iterdir()))}")
            folders[-1].mkdir()
            write_table(folders[-1], table, source)
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        inputs = {"rows" if table == "rows" else table: folders}
        job = Job(MixConfig(**config), inputs | ({"tokenizer": tokenizer} if tokenizer else {}), out, seed)
        run(job)
        assert sorted(path.suffix for path in out.iterdir()) == [".parquet"]
        return job

    return mix


def ids(job):
    return [row.id for row in read_table(job.folder, "rows")]


def obtained(job):
    return {name: part["obtained"] for name, part in job.summary["parts"].items()}


def test_shares_of_a_total(mix):
    job = mix([rows("a", 50), rows("b", 15) + rows("c", 9)], parts={"a": 2, "b": 1}, total=40)
    assert obtained(job) == {"a": 27, "b": 13}
    assert job.summary["parts"]["b"] | {"tokens": 0} == {
        "available": 15, "asked": 13, "obtained": 13, "examples": 13, "tokens": 0, "passes": 0.867
    }  # fmt: skip
    assert job.summary["counts"]["capability"] == {
        "a": {"available": 50, "obtained": 27}, "b": {"available": 15, "obtained": 13},
        "c": {"available": 9, "obtained": 0},
    }  # fmt: skip
    assert job.summary["drops"] == {"duplicate": 0, "not asked for": 9, "beyond its share": 25}
    assert Counter(row.capability for row in read_table(job.folder, "rows")) == {"a": 27, "b": 13}


def test_total_zero_takes_the_most_that_keeps_the_shares(mix):
    assert obtained(mix([rows("a", 50) + rows("b", 10)], parts={"a": 3, "b": 1})) == {"a": 30, "b": 10}


def test_without_parts_every_different_row_is_taken(mix):
    job = mix([rows("a", 7), rows("a", 3, start=5), rows("b", 2)])
    assert job.rows == {"rows": 10}
    assert job.summary["drops"] == {"duplicate": 2, "not asked for": 0, "beyond its share": 0}


def test_the_order_of_inputs_does_not_matter_and_the_seed_does(mix):
    sources = [rows("a", 40), rows("b", 40)]
    first = ids(mix(sources, total=20, parts={"a": 1, "b": 1}))
    assert first == ids(mix([list(reversed(s)) for s in reversed(sources)], total=20, parts={"b": 1, "a": 1}))
    other = ids(mix(sources, seed=2, total=20, parts={"a": 1, "b": 1}))
    assert len(other) == 20
    assert set(other) != set(first)


def test_a_larger_mix_extends_a_smaller_one(mix):
    source = [rows("a", 40)]
    assert set(ids(mix(source, total=10))) < set(ids(mix(source, total=20)))


def test_epochs_go_over_good_rows_again_and_take_fractions_of_others(mix):
    job = mix([rows("good", 10), rows("bad", 10)], parts={"good": {"epochs": 2.5}, "bad": {"epochs": 0.35}})
    assert obtained(job) == {"good": 25, "bad": 3}
    times = Counter(ids(job))
    assert sorted(Counter(times[row.id] for row in rows("good", 10)).items()) == [(2, 5), (3, 5)]
    weighted = mix([rows("good", 10), rows("bad", 90)], parts={"good": {"weight": 1, "epochs": 3}, "bad": 1})
    assert obtained(weighted) == {"good": 30, "bad": 30}


def test_a_cap_holds_whatever_the_weight(mix):
    job = mix([rows("a", 50), rows("b", 50)], parts={"a": {"weight": 1, "cap": 5}, "b": 2})
    assert obtained(job) == {"a": 5, "b": 10}
    with pytest.raises(UserError, match=r"a 10 where 5 may be taken\); lower mix.total to 10, or give"):
        mix(
            [rows("a", 50), rows("b", 50)],
            parts={"a": {"weight": 1, "cap": 5}, "b": 1},
            total=20,
            on_shortfall="repeat",
        )


def test_a_shortfall_is_an_error_or_an_explicit_repeat(mix):
    sources, parts = [rows("a", 50), rows("b", 4)], {"a": 1, "b": 1}
    with pytest.raises(UserError) as caught:
        mix(sources, parts=parts, total=20)
    assert str(caught.value) == (
        "the mix asks for more examples than its parts have (b 10 where 4 may be taken); lower mix.total to 8, or give "
        "these parts more epochs, or set on_shortfall: repeat"
    )
    job = mix(sources, parts=parts, total=20, on_shortfall="repeat")
    assert obtained(job) == {"a": 10, "b": 10}
    times = Counter(ids(job))
    assert sorted(times[row.id] for row in rows("b", 4)) == [2, 2, 3, 3]
    assert job.summary["parts"]["b"]["passes"] == 2.5


def test_a_part_without_any_row_is_an_error(mix):
    with pytest.raises(UserError, match=r"no row for tool_use \(examples found: a 3\)"):
        mix([rows("a", 3)], parts={"tool_use": 1, "a": 1}, on_shortfall="repeat")
    with pytest.raises(UserError, match="no row for tool_use"):
        mix([rows("a", 3)], parts={"tool_use": {"epochs": 2}, "a": {}})
    with pytest.raises(UserError, match="no rows at all"):
        mix([[]])


def test_filters_by_capability_language_source_round_and_scores(mix):
    there = [
        row("1", "code", language="en", source="x", reward=1.0, made_by={"round": 1}, labels={"quality": 3}),
        row("2", "code", language="de", source="x", reward=2.0, made_by={"round": 2}, labels={"quality": 1}),
        row("3", "math", language="en", source="y", reward=None, made_by={"round": 2}, labels={"quality": 3}),
        row("4", "math", language="fr", source="y", reward=3.0, made_by={}, labels={"topic": "algebra"}),
    ]

    def taken(**part):
        return sorted(row.messages[0]["content"] for row in read_table(mix([there], parts={"p": part}).folder, "rows"))

    assert taken(capability="any") == ["1", "2", "3", "4"]
    assert taken(capability=["code", "math"], language=["en", "fr"]) == ["1", "3", "4"]
    assert taken(capability="any", source="y") == ["3", "4"]
    assert taken(capability="any", round=[2]) == ["2", "3"]
    assert taken(capability="any", least={"reward": 2}) == ["2", "4"]
    assert taken(capability="any", least={"quality": 2}) == ["1", "3"]
    assert taken(capability="any", least={"quality": 2, "reward": 0}) == ["1"]


def test_a_row_that_two_parts_would_take_is_named(mix):
    parts = {"code": {}, "german": {"capability": "any", "language": "de"}}
    with pytest.raises(UserError, match="2 rows belong to both parts code and german"):
        mix([rows("code", 3), rows("code", 2, start=9, language="de")], parts=parts)


def test_of_equal_rows_the_newest_and_best_is_kept(mix):
    made = ((3.0, 1), (1.0, 2), (2.0, 2), (None, 2))
    same = [row("q", "a", reward=reward, made_by={"round": number}) for reward, number in made]
    for sources in ([[one] for one in same], [[one] for one in reversed(same)], [same]):
        (kept,) = read_table(mix(sources).folder, "rows")
        assert (kept.reward, kept.made_by["round"]) == (2.0, 2)


def test_rows_come_out_as_they_went_in(mix):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"é": [None, {"x": 1.5}]}}}
    there = [row("q", "a", tools=(tool,), parents=("1",), labels={"tags": ["x"]}), *rows("a", 30)]
    found = {row.id: row for row in read_table(mix([there[:5], there[5:]]).folder, "rows")}
    assert found == {row.id: row for row in there}


def test_shares_of_tokens_are_counted_by_the_tokenizer(mix):
    from tokenizers import Tokenizer

    folder = tiny_models_folder() / "base"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    long = [row(f"{i} " + "word " * 50, "long") for i in range(20)]
    short = [row(f"{i} word", "short") for i in range(400)]
    job = mix([long, short], parts={"long": 1, "short": 1}, by="tokens", total=2000, tokenizer=folder)
    lengths = Counter()
    for one in read_table(job.folder, "rows"):
        text = "\n".join(message["content"] for message in one.messages)
        lengths[one.capability] += len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert {name: part["obtained"] for name, part in job.summary["parts"].items()} == lengths
    longest = max(lengths["long"] // 20, 60)
    assert abs(lengths["long"] - 1000) <= longest
    assert abs(lengths["short"] - 1000) <= 10


def test_pairs_are_mixed_by_rating_and_margin(mix):
    there = [pair("1", rating="better"), pair("2", rating="slightly_better"), pair("3", rating=EDITED), pair("4")]
    parts = {"a": {"rating": ["significantly_better", "better", EDITED]}}
    job = mix([there], table="preferences", of="annotated", parts=parts)
    assert sorted(found.prompt[0]["content"] for found in read_table(job.folder, "pairs")) == ["1", "3"]
    ranked = mix(
        [[pair("1", margin=0.2), pair("2", margin=0.9)]],
        table="pairs",
        of="ranked",
        parts={"a": {"least": {"margin": 0.5}}},
    )
    assert [found.margin for found in read_table(ranked.folder, "pairs")] == [0.9]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"parts": {"a": -1}}, "greater than or equal to 0"),
        ({"parts": {"a": float("nan")}}, "finite"),
        ({"parts": {"a": float("inf")}}, "finite"),
        ({"parts": {"a": 0}}, "at least one weight must be above 0"),
        ({"parts": {"a": 1, "b": {"epochs": 2}}}, "some parts have a weight and b none"),
        ({"parts": {"a": {"rating": "better"}}}, "asks for ratings, which rows do not have"),
        ({"of": "ranked", "parts": {"a": {"rating": "good"}}}, "rating"),
        ({"of": "ranked", "parts": {"a": {"epochs": 2}}}, "a pair stands once in a mix"),
    ],
)
def test_parts_that_make_no_sense(config, reason):
    with pytest.raises(ValidationError, match=reason):
        MixConfig(**config)


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.floats(0.01, 100), min_size=1), st.data())
def test_total_zero_never_asks_a_part_for_more_than_it_has(weights, data):
    there = {name: data.draw(st.integers(1, 300)) for name in weights}
    config = MixConfig(parts=weights)
    asked = asked_amounts(config, config.parts, there)
    assert all(asked[name] <= there[name] for name in weights)
    whole = sum(asked.values())
    assert all(abs(asked[name] - whole * weight / sum(weights.values())) < 1 + 1e-6 for name, weight in weights.items())


def test_the_papers_mixes_are_shipped():
    """Tables 6 and 7 of the paper, which sum up to 100; about 0.1% is long context. Safety comes beside them."""
    path = shipped_recipes()["llama-3.1-8b"]
    recipe = load_recipe(path)
    config = {entry.name: entry.config for entry in recipe.by_round[0]}
    sft = {name: part.weight for name, part in config["mix"].parts.items() if name != "safety"}
    assert sft == {
        "general_english": 52.66, "code": 14.89, "multilingual": 3.01, "exam_like": 8.14, "reasoning_and_tools": 21.19,
        "long_context": 0.11,
    }  # fmt: skip
    pairs = {name: part.weight for name, part in config["mix_pairs"].parts.items() if name != "safety"}
    assert pairs == {"general_english": 81.99, "code": 6.93, "multilingual": 5.19, "reasoning_and_tools": 5.89}
    assert sum(sft.values()) == pytest.approx(100)
    assert sum(pairs.values()) == pytest.approx(100)
    node = {node.id: node for node in make_plan(recipe, path).nodes}
    assert [of.id for of in node["round-1/dpo"].inputs["pairs"]] == ["round-1/mix_pairs"]
    assert [of.id for of in node["round-1/mix_pairs"].inputs["pairs"]] == ["round-1/decontaminate_pairs"]


def test_a_part_may_be_a_number_and_texts_stand_alone():
    config = MixConfig(parts={"a": 2, "b": {"weight": 1, "language": "de", "round": 2}})
    assert config.parts["a"] == Part(weight=2.0)
    assert (config.parts["b"].language, config.parts["b"].round) == (("de",), (2,))
    assert (SPEC.provides(config), SPEC.provides(MixConfig(of="both"))) == (("sft_data",), ("dpo_data",))


def test_rows_beyond_memory_are_dealt_into_buckets(mix, monkeypatch):
    monkeypatch.setattr("posttrain.data.gather.BUCKET_BYTES", 2_000)
    monkeypatch.setattr("posttrain.data.tables.GROUP_ROWS", 40)
    there = [rows("a", 300), rows("b", 100)]
    config = {"parts": {"a": {"epochs": 2}, "b": {"epochs": 0.5}}}
    many = ids(mix(there, **config))
    monkeypatch.undo()
    assert many == ids(mix(there, **config))
    assert len(many) == 650


def test_what_a_killed_run_left_is_thrown_away(tmp_path: Path):
    source, out = tmp_path / "in", tmp_path / "out"
    (out / "spill").mkdir(parents=True)
    (out / "spill" / "7").write_bytes(b"half")
    source.mkdir()
    write_table(source, "rows", rows("a", 3))
    run(Job(MixConfig(), {"rows": [source]}, out, 1))
    assert [path.name for path in out.iterdir()] == ["rows.parquet"]
