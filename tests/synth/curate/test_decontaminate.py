"""Planted evaluation prompts: found whole, in pieces, in other writings; and what only looks alike stays."""

import pytest

from posttrain.data.rows import Row
from posttrain.errors import UserError
from tests.synth.curate.conftest import ask, kept_ids, pair, reasons, rejects, row

SECRET = "A farmer has seventeen sheep and all but nine of them run away; how many are left on the farm?"
"""20 words, so 13 runs of 8."""
EVAL = [ask(SECRET, capability="reasoning"), ask("Name the capital of Peru.", capability="general")]


def test_the_planted_prompt_is_found_whole_and_the_other_rows_stay(curate):
    planted = row("Nine.", SECRET.upper().replace(";", " –"))
    other = row("Eight.", "A baker has seventeen loaves and sells all but eight of them; how many are left?")
    short = row("Lima.", "name the  capital of Peru")
    job = curate("decontaminate", [planted, other, short], eval_prompts=EVAL, ngram=8)
    assert kept_ids(job) == {other.id}
    assert reasons(job) == {planted.id: "equals an eval prompt", short.id: "equals an eval prompt"}
    assert rejects(job)[short.id].detail == {"eval_prompt": EVAL[1].id}
    assert job.summary["eval_prompts"] == {"compared": 2, "found": 2}
    assert job.summary["eval_prompts_found_by_capability"] == {"general": 1, "reasoning": 1}


def test_overlap_is_the_share_of_the_evaluation_prompts_words(curate):
    """Its first 11 words are runs 0 to 3, which cover 11 of 20 words = 0.55."""
    piece = "Consider this: a farmer has SEVENTEEN sheep, and all but nine of them sleep."
    half = row("Hm.", piece)
    job = curate("decontaminate", [half, row("x")], eval_prompts=EVAL, overlap=0.54)
    reject = rejects(job)[half.id]
    assert (reject.reason, reject.detail) == (
        "overlaps an eval prompt", {"eval_prompt": EVAL[0].id, "overlap": 0.55},
    )  # fmt: skip
    assert reject.text == "a farmer has SEVENTEEN sheep, and all but nine of them"
    for config in ({"overlap": 0.56}, {"overlap": 0.5, "ngram": 13}, {"overlap": None}):
        assert reasons(curate("decontaminate", [half, row("x")], eval_prompts=EVAL, **config)) == {}
    assert reasons(curate("decontaminate", [half, row("x")], eval_prompts=EVAL, overlap=0.0)).keys() == {half.id}


def test_the_prompt_inside_an_answer_or_a_longer_message_counts(curate):
    told = row("Here is a riddle. " + SECRET, "Tell me a riddle.")
    asked = row("Nine.", "Please think hard. " + SECRET + " Answer briefly.")
    job = curate("decontaminate", [told, asked, row("x")], eval_prompts=EVAL)
    assert set(reasons(job)) == {told.id, asked.id}


def test_shared_system_prompts_are_no_contamination(curate):
    system = {
        "role": "system",
        "content": "You are a careful assistant that answers every question in one short sentence.",
    }
    question = {"role": "user", "content": "Who wrote the book about the white whale and the captain?"}
    eval_prompt = type(EVAL[0])((system, question), "general")
    trained = Row((system, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}), "general")
    assert reasons(curate("decontaminate", [trained], eval_prompts=[eval_prompt])) == {}


def test_thai_without_spaces_is_compared_too(curate):
    question = "ชาวนามีแกะสิบเจ็ดตัว และแกะทั้งหมดยกเว้นเก้าตัวหนีไป เหลือแกะกี่ตัวในฟาร์ม"
    planted = row("เก้า", "ตอบสั้น ๆ " + question, language="th")
    other = row("กรุงเทพ", "เมืองหลวงของประเทศไทยคือเมืองอะไร และมีคนอยู่กี่คน", language="th")
    job = curate("decontaminate", [planted, other], eval_prompts=[ask(question)])
    assert kept_ids(job) == {other.id}
    assert rejects(job)[planted.id].text == question


def test_prompts_and_pairs_are_searched_too(curate):
    job = curate("decontaminate", [ask(SECRET), ask("else")], eval_prompts=EVAL, over="prompts")
    assert reasons(job) == {EVAL[0].id: "equals an eval prompt"}
    hit, clean = pair("A riddle?", "No.", SECRET), pair("A riddle?", "No.", "Yes.")
    assert kept_ids(curate("decontaminate", [hit, clean], eval_prompts=EVAL, over="pairs"), "pairs") == {clean.id}


def test_nothing_to_compare_with_is_an_error(curate):
    with pytest.raises(UserError, match="evaluation prompts are empty"):
        curate("decontaminate", [row("x")], eval_prompts=[])
