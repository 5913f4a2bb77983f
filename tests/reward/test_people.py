"""Annotation by people: what they are given, what they may give back, and what is made of it."""

import csv
import json

import pytest

from posttrain.chat import parse_message
from posttrain.data.rows import EDITED
from posttrain.data.tables import read_table
from posttrain.errors import UserError, WaitingForPerson
from reward import people
from reward.annotate import run
from reward.annotate_spec import AnnotateConfig, filled_in
from tests.reward.conftest import ask, call, say

CONFIG = AnnotateConfig(by="human", share=1, pairs_per_prompt=1)


@pytest.fixture
def waiting(job_of, folder_of):
    """A job that has written its comparisons, the rows of both files, and how to go on with a filled-in file."""
    prompts = [ask("Capital of Italy?"), ask("Weather?")]
    texts = [("Rom", "Ulm", "Rom", "Bonn…"), (call("f", a=1), "no idea")]
    responses = [r for prompt, own in zip(prompts, texts, strict=True) for r in say(prompt, *own)]
    job = job_of(CONFIG, folder_of(prompts=prompts, responses=responses))
    with pytest.raises(WaitingForPerson) as told:
        run(job)
    rows = [json.loads(line) for line in (job.folder / people.JSONL).read_text().splitlines()]
    with open(job.folder / people.CSV, encoding="utf-8-sig", newline="") as handle:
        flat = list(csv.DictReader(handle))

    def goes_on(filled, name="filled.jsonl"):
        path = job.folder.parent / name
        if name.endswith(".csv"):
            with open(path, "w", encoding="utf-8", newline="") as handle:
                writer = csv.DictWriter(handle, list(filled[0]), delimiter=";")
                writer.writeheader()
                writer.writerows(filled)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in filled))
        again = job_of(CONFIG, {**job.inputs, "filled_in": path}, "again")
        run(again)
        return read_table(again.folder, "preferences"), again

    return rows, flat, goes_on, str(told.value)


def test_both_files_hold_the_same_comparisons_of_whole_different_answers(waiting):
    rows, flat, _, told = waiting
    assert [row["id"] for row in rows] == [row["id"] for row in flat]
    assert {frozenset((row["answer_a"], row["answer_b"])) for row in flat} == {
        frozenset(("Rom", "Ulm")), frozenset((call("f", a=1), "no idea")),
    }  # fmt: skip
    assert flat[0]["prompt"].startswith("[user]\n")
    assert rows[0]["messages"][0]["role"] == "user"
    assert (flat[0]["choice"], flat[0]["rating"], flat[0]["edited"]) == ("", "", "")
    assert told.startswith("2 comparisons wait for a person")
    assert "preferences-round-1.csv" in told


def fill(row, better, rating="better", edited=""):
    return {**row, "choice": "a" if row["answer_a"] == better else "b", "rating": rating, "edited": edited}


def italy(rows):
    return next(row for row in rows if "Rom" in (row["answer_a"], row["answer_b"]))


def other(rows):
    return next(row for row in rows if row is not italy(rows))


@pytest.mark.parametrize("name", ["filled.jsonl", "filled.csv"])
def test_a_choice_with_its_rating_is_a_pair_and_an_edit_outranks_both(waiting, name):
    rows, flat, goes_on, _ = waiting
    source = flat if name.endswith(".csv") else rows
    filled = [fill(italy(source), "Rom", "Significantly better", "Rome"), {**other(source), "choice": "tie"}]
    pairs, job = goes_on(filled, name)
    found = {(p.chosen["content"], p.rejected["content"], p.rating) for p in pairs}
    assert found == {("Rom", "Ulm", "significantly_better"), ("Rome", "Rom", EDITED), ("Rome", "Ulm", EDITED)}
    assert len({p.prompt_id for p in pairs}) == 1
    assert job.summary["drops"] == {"tie": 1}


def test_an_edit_may_be_a_call_and_one_that_changes_nothing_is_dropped(waiting):
    rows, _, goes_on, _ = waiting
    better = call("f", a=2)
    filled = [fill(italy(rows), "Rom", edited=" Rom "), fill(other(rows), call("f", a=1), edited=better)]
    pairs, job = goes_on(filled)
    edits = [p for p in pairs if p.rating == EDITED]
    assert [p.chosen for p in edits] == [parse_message(better)] * 2
    assert job.summary["drops"] == {"edit_changes_nothing": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"choice": ""}, r"filled.jsonl:1: has no choice; write a, b, tie or skip"),
        ({"choice": "c"}, r"filled.jsonl:1: choice is 'c'; write a, b, tie, skip"),
        ({"choice": "a", "rating": ""}, r"rating is ''; write one of significantly_better"),
        ({"choice": "a", "rating": "great"}, r"rating is 'great'"),
        ({"choice": "tie", "rating": "better"}, r"choice is tie but there is a rating"),
        ({"choice": "skip", "rating": "", "edited": "x"}, r"choice is skip but there is an edited answer"),
        ({"choice": 1}, r"choice is a int, not a text"),
        ({"id": "nobody"}, r"the id 'nobody' is none of this round's comparisons"),
    ],
)
def test_a_faulty_line_is_told_with_its_number_and_reason(waiting, change, told):
    rows, _, goes_on, _ = waiting
    filled = [{**fill(rows[0], rows[0]["answer_a"]), **change}, fill(rows[1], rows[1]["answer_a"])]
    with pytest.raises(UserError, match=told):
        goes_on(filled)


def test_a_file_must_hold_every_comparison_once(waiting):
    rows, _, goes_on, _ = waiting
    first = fill(rows[0], rows[0]["answer_a"])
    with pytest.raises(UserError, match=rf"lacks 1 of 2 comparisons, first {rows[1]['id']}"):
        goes_on([first])
    with pytest.raises(UserError, match="stands twice"):
        goes_on([first, first])


def test_files_that_are_something_else(waiting, tmp_path):
    with pytest.raises(UserError, match=r"x.csv has no column choice and no column rating"):
        (tmp_path / "x.csv").write_text("id,answer\n1,2\n")
        people.read(tmp_path / "x.csv", [])
    with pytest.raises(UserError, match=r"x.jsonl:2 is not JSON"):
        (tmp_path / "x.jsonl").write_text("\n{]\n")
        people.read(tmp_path / "x.jsonl", [])
    with pytest.raises(UserError, match="not UTF-8"):
        (tmp_path / "y.jsonl").write_bytes(b"\xff\xfe\xff")
        people.read(tmp_path / "y.jsonl", [])


def test_nothing_to_compare_is_a_sentence_and_nobody_is_asked(job_of, folder_of):
    prompt = ask("Capital of Italy?")
    with pytest.raises(UserError, match="no two different answers"):
        run(job_of(CONFIG, folder_of(prompts=[prompt], responses=say(prompt, "Rom", "Rom "))))


def test_the_name_of_the_file_has_the_round_and_no_ending():
    assert filled_in(AnnotateConfig(by="human", file="labels/r{round}.csv"), 3) == "labels/r3"
