"""Each rule on rows that it hits and rows that it must leave alone."""

import pytest

from posttrain.data.rows import Row
from posttrain.data.tables import from_record
from posttrain.errors import UserError
from synth.curate.clean import apology, judge, surplus, unclosed_fence
from synth.curate.clean_spec import CleanConfig
from tests.synth.curate.conftest import kept, kept_ids, reasons, rejects, row

GOOD = "Rome is the capital of Italy, and has been since 1871."
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
GERMAN = "Die Hauptstadt von Italien ist Rom, und zwar seit dem Jahr 1871."
HINDI = "इटली की राजधानी रोम है और यह एक पुराना शहर है।"
THAI = "เมืองหลวงของอิตาลีคือกรุงโรม ซึ่งเป็นเมืองที่เก่าแก่มาก"


def rule_of(item, **config):
    drop = judge(item, CleanConfig(**config))
    return drop and drop.reason


@pytest.mark.parametrize(
    ("answer", "language", "rule"),
    [
        (GOOD, "en", None),
        (GERMAN, "de", None),
        (HINDI, "hi", None),
        (THAI, "th", None),
        ("42", "de", None),
        ("", "en", "empty"),
        (" \n\t", "en", "empty"),
        ("Here:\n```python\nprint(1)\n", "en", "unclosed_code"),
        ("Here:\n```python\nprint('!!!!!!!')\n```\n", "en", None),
        (GERMAN, "en", "language"),
        (HINDI, "en", "language"),
        (THAI, "hi", "language"),
        ("Kya aap mujhe bata sakte hain ki yeh kahan hai?", "hi", None),
        ("Kya aap mujhe bata sakte hain ki yeh kahan hai?", "en", "language"),
        ("これはイタリアの首都についての説明です。とても古い町です。", "en", "language"),
        ("これはイタリアの首都についての説明です。とても古い町です。", "ja", None),
        ("I’m sorry, but I can’t help with that.", "en", "refusal"),
        ("As an AI, I do not have opinions.", "en", "refusal"),
        ("She said that this was good as an aim for life.", "en", None),
        ("Als Sprachmodell habe ich dazu leider gar keine Meinung.", "de", "refusal"),
        ("Je ne peux pas vous aider à faire cela, je le regrette.", "fr", "refusal"),
        ("Lo siento, pero no puedo ayudarte con esa petición.", "es", "refusal"),
        ("Non posso aiutarti con questa richiesta, purtroppo.", "it", "refusal"),
        ("Infelizmente não posso ajudar com esse pedido hoje.", "pt", "refusal"),
        ("क्षमा करें, मैं इसमें मदद नहीं कर सकता।", "hi", "refusal"),
        ("ขออภัย ฉันไม่สามารถช่วยเรื่องนี้ได้", "th", "refusal"),
        ("we go on and on and " * 12, "en", "repetition"),
        ("ขอบคุณครับ" * 20, "th", "repetition"),
        ("```\n" + "x = 1 + 1 + 1\n" * 30 + "```", "en", None),
        ("Great choice 😀😀😀 for you", "en", None),
        ("Great choice 😀😀😀😀 for you", "en", "emoji"),
        (f"Your family {FAMILY} and flags 🇩🇪 and hands 👍🏽 are there", "en", None),
        ("Done ✔ for 2 © and → #1 of *all* [x] ✓", "en", None),
        ("Yes! Sure! Of course! That is the answer that you want!", "en", None),
        ("Yes! Sure! Of course! That is the answer that you want!!", "en", "exclamation"),
        ("In C `!a` and `!b` and `!c` and `!d` and `!e` negate their operands.", "en", None),
    ],
)  # fmt: skip
def test_rule_by_rule(answer, language, rule):
    assert rule_of(row(answer, language=language)) == rule


def test_limits_are_per_hundred_words():
    long = " ".join(f"word{number}" for number in range(199)) + "!"
    assert rule_of(row(long + " a" + "!" * 7), language=False) is None
    assert rule_of(row(long + " a" + "!" * 8), language=False) == "exclamation"


def test_a_refusal_far_from_the_beginning_is_a_quotation():
    story = "The robot of this story was built to help people in every way that they could think of. " * 3
    assert rule_of(row(story + "Then it said: I can't help with that.", language="en"), repetition=None) is None


def test_every_answer_of_a_conversation_is_looked_at_and_prompts_are_not():
    turns = [("user", "!!!!!!!! 😀😀😀😀😀"), ("assistant", GOOD), ("user", "And?"), ("assistant", GOOD)]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert rule_of(Row(tuple(messages), "general")) is None
    messages[1] = {"role": "assistant", "content": "Yes!!!!! " + GOOD}
    assert rule_of(Row(tuple(messages), "general")) == "exclamation"


def test_a_call_without_words_is_not_empty():
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    messages = ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]})
    assert rule_of(Row(messages, "tool_use")) is None


def test_rules_can_be_left_out_altogether_or_for_a_capability():
    refusal = row("I can't help with that kind of request.", capability="safety")
    assert rule_of(refusal) is None
    assert rule_of(refusal, exempt={}) == "refusal"
    assert rule_of(refusal, exempt={}, refusal=False) is None
    assert rule_of(row("Nope, not me, never at all."), refusal_phrases=("nope, not me",)) == "refusal"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("```\na\n```", ""),
        ("```py\na\n````", ""),
        ("````\n```\n````", ""),
        ("````\na\n```", "````"),
        ("~~~\n```\n~~~", ""),
        ("```\na\n```\n```sh\nb", "```sh"),
        ("```\na\n```js\n```", ""),
        ("inline ``` here", ""),
        ("``` a ``` b", ""),
        ("    ```\nindented code", ""),
    ],
)
def test_fences_open_and_close_as_commonmark_says(text, line):
    assert unclosed_fence(text) == line


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("I’m  sorry for the delay.", "i'm sorry"),
        ("Es tut mir leid.", "es tut mir leid"),
        ("Désolée de ce retard", "désolée"),
        ("Mi dispiace molto", "mi dispiace"),
        ("Peço desculpas.", "peço desculpas"),
        ("Lo siento mucho", "lo siento"),
        ("मुझे खेद है", "मुझे खेद है"),
        ("ขออภัย", "ขออภัย"),
        ("A sorry state of affairs; the Sorrys apologized.", ""),
        ("`I'm sorry`", ""),
    ],
)
def test_apologies_in_eight_languages(answer, found):
    assert apology(row(answer), CleanConfig()) == found


def test_apologies_are_balanced_and_not_removed(curate):
    sorry = [row(f"I apologize. It is {n}, to say the truth about it.", f"q{n}") for n in range(10)]
    others = [row(f"It is {n}, to say the truth about it.", f"q{n}") for n in range(16)]
    job = curate("clean", sorry + others, apology=0.2, language=False)
    left = kept(job)
    assert (len(left), sum("apologize" in r.messages[-1]["content"] for r in left)) == (20, 4)
    assert job.summary["apologies"] == {"general": {"rows": 26, "with": 10, "left_out": 6}}
    assert job.summary["drops"] == {"apology": 6}
    assert {reject.text for reject in rejects(job).values()} == {"i apologize"}
    again = curate("clean", list(reversed(others)), list(reversed(sorry)), apology=0.2, language=False)
    assert kept_ids(again) == kept_ids(job)
    assert kept_ids(curate("clean", sorry + others, apology=0.2, language=False, seed=8)) != kept_ids(job)


def test_the_share_of_apologies_is_of_what_remains():
    group = {"with": list("abcdef"), "without": list("ghij")}
    assert len(surplus(0, group, 0.2)) == 5
    assert len(surplus(0, group, 0.5)) == 2
    assert len(surplus(0, group, 0.0)) == 6
    assert surplus(0, {"with": ["a"], "without": []}, 0.5) == ["a"]


def test_excess_can_be_stripped_and_the_original_is_kept_among_the_rejects(curate):
    loud = row("Wow!!! 😀😀😀😀😀 Rome is it!!! `a!!b`", made_by={"model": "m"})
    job = curate("clean", [loud, row(GOOD)], excess="strip")
    changed = next(r for r in kept(job) if loud.id in r.parents)
    assert changed.messages[-1]["content"] == "Wow! Rome is it! `a!!b`"
    assert changed.id != loud.id
    assert changed.made_by == {"model": "m", "changed_by": "clean"}
    assert reasons(job) == {loud.id: "emoji, changed"}
    assert from_record(Row, rejects(job)[loud.id].row) == loud


def test_what_stripping_does_not_mend_is_left_out(curate):
    shouting = row("Yes! Yes! No! Yes! No! It is Rome.")
    job = curate("clean", [shouting, row("😀😀😀😀"), row(GOOD)], excess="strip", language=False)
    assert sorted(reasons(job).values()) == ["empty", "exclamation"]


def test_counts_and_reasons_by_capability(curate):
    job = curate("clean", [row(GOOD), row("", capability="b"), row("", "other", capability="c"), row(" ", "third")])
    assert job.rows == {"rows": 1, "rejects": 3}
    assert job.summary["drops_by_capability"] == {"empty": {"b": 1, "c": 1, "general": 1}}


def test_a_repeated_row_is_read_once(curate):
    job = curate("clean", [row(GOOD)], [row(GOOD)])
    assert (job.rows, job.summary["read"]) == ({"rows": 1, "rejects": 0}, 1)


def test_keeping_nothing_is_an_error_that_says_why(curate):
    with pytest.raises(UserError, match=r"clean kept none of 2 rows \(empty 2\); loosen its rules"):
        curate("clean", [row(""), row(" ")])
