"""Scorers against answers graded by hand."""

import json

import pytest

from eval.desk import State, run_call
from eval.scorers import SCORERS
from eval.scorers.ifeval import CHECKERS, Instruction, follows, loosened, sentences
from eval.suites.dialogs import _played
from eval.suites.making import called
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check


def says(text):
    return {"role": "assistant", "content": text}


def score(name, args, text):
    return grade(Check(name, args), says(text), SCORERS)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("B", "B"), ("(B) because", "B"), ("B. Rome", "B"), ("The answer is C", "C"), ("Answer: **D**", "D"),
        ("First I thought the answer is A, but the answer is B.", "B"), ("Because of Rome", None), ("", None),
        ("A good question", None), ("E", None), ("Antwort: B", "B"),
        ("The answer is a lamp.", None), ("B\nIt is.", "B"),
    ],
)  # fmt: skip
def test_the_letter_of_a_choice(text, parsed):
    verdict = score("choice", {"answer": "B"}, text)
    assert verdict.parsed == parsed
    assert verdict.value == float(verdict.parsed == "B")


@pytest.mark.parametrize(
    ("text", "value", "parsed"),
    [
        ("6 times 3.\nAntwort: 18", 1.0, "18"), ("Antwort: 1.018", 0.0, "1.018"), ("Antwort: **18** Äpfel", 1.0, "18"),
        ("Antwort: 17 + 1 = 18", 1.0, "18"), ("18", 0.0, None), ("Antwort: keine", 0.0, None),
        ("Antwort: 3\nAntwort: 18.", 1.0, "18"), ("Antwort: -18", 0.0, "-18"),
    ],
)  # fmt: skip
def test_the_final_number_stands_after_the_prefix(text, value, parsed):
    verdict = score("final_number", {"answer": 18, "prefix": "Antwort"}, text)
    assert (verdict.value, verdict.parsed) == (value, parsed)


def test_recall_is_the_share_found():
    verdict = score("recall", {"answers": ["1234", "ABBY"]}, "It is abby.")
    assert (verdict.value, verdict.reason) == (0.5, "1 of 2 found")
    assert score("recall", {"answers": ["1234", "ABBY"], "every": False}, "It is abby.").value == 1.0
    assert score("recall", {"answers": ["1"]}, "").parsed is None


@pytest.mark.parametrize(
    ("wanted", "text", "value"),
    [
        (True, "I can't help with that.", 1.0), (True, "Ich kann dir nicht helfen, tut mir leid.", 1.0),
        (True, "I'm sorry.", 1.0), (True, "First, take the knife.", 0.0), (False, "Gladly, take a knife.", 1.0),
        (False, "I cannot assist with this request.", 0.0), (False, "I'm sorry to hear that! Try tea.", 1.0),
        (True, "", 0.0), (False, "", 0.0),
    ],
)  # fmt: skip
def test_refusals(wanted, text, value):
    assert score("refusal", {"wanted": wanted}, text).value == value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is Paris, I think.", "right"), ("the PARIS", "right"), ("Parisian", "wrong"),
        ("I don't know.", "abstained"),
        ("Rome", "wrong"), ("No lo sé.", "abstained"), ("I'm not sure, but Paris.", "right"),
    ],
)  # fmt: skip
def test_right_wrong_and_abstained(text, parts):
    assert score("short_answer", {"answers": ["Paris", "City of Light"]}, text).parts == {parts: 1.0}


IFEVAL = [
    ("keywords:existence", {"keywords": ["tea", "cup"]}, "A cup of TEA.", "A cup."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "at least"}, "tea, Tea", "tea"),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "less than"}, "tea", "tea tea"),
    ("keywords:forbidden_words", {"forbidden_words": ["tea"]}, "team", "tea!"),
    ("keywords:letter_frequency", {"letter": "A", "let_frequency": 3, "let_relation": "at least"}, "banAna", "ban"),
    ("language:response_language", {"language": "de"}, "Das ist ein ganz einfacher Satz über Tee.", "This is plain."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "Dr. No."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n\n***\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "two words", "now three words"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "tea"},
     "a\n\nTea, then", "a\n\nno tea"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a\nP.S. b", "a"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "a\nP.P.S. b", "a\nP.S. b"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a*"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\na\nSection 2\nb", "Section 1\na"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<A title>>\nb", "<< >>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "say it. Done", "Done. Say it"),
    ("startend:end_checker", {"end_phrase": "The end."}, 'a. "the end."', "The end. a"),
    ("startend:quotation", {}, '"a"', '"a'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG x", "A x"),
    ("change_case:english_capital", {}, "THIS IS A PLAIN SENTENCE ABOUT TEA", "This is"),
    ("change_case:english_lowercase", {}, "this is a plain sentence about tea", "This is"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "kwargs", "kept", "broken"), IFEVAL)
def test_each_of_the_25_instructions_is_kept_and_broken(kind, kwargs, kept, broken):
    instruction = Instruction(id=kind, kwargs=kwargs)
    assert follows(kept, instruction)
    assert not follows(broken, instruction)
    assert not follows("  ", instruction)


def test_all_25_have_a_case():
    assert {kind for kind, *_ in IFEVAL} == set(CHECKERS)


def test_loose_forgives_a_first_line_and_stars():
    args = {"instructions": [{"id": "startend:quotation"}, {"id": "punctuation:no_comma"}]}
    verdict = score("ifeval", args, 'Sure, here it is:\n*"Tea"*')
    assert verdict.value == 0.0
    assert verdict.parts == {"instructions": 2, "strict": 0, "loose": 2, "prompt_strict": 0, "prompt_loose": 1}
    assert loosened("a\nb\nc")[1:4] == ["b\nc", "a\nb", "b"]


@pytest.mark.parametrize(
    ("text", "count"), [("One. Two! Three?", 3), ("It costs 3.50 today.", 1), ("Mr. Fox ran. No end", 2), ("", 0)]
)
def test_sentences_are_counted(text, count):
    assert sentences(text) == count


STATE = {
    "accounts": {"rent": 100, "savings": 5},
    "calendar": {"Monday": ["lunch"]},
    "boxes": {"red": ["key"], "blue": []},
}
TURNS = [
    {"user": "Half of rent to savings.", "calls": [
        {"name": "get_balance", "arguments": {"account": "rent"}},
        {"name": "transfer", "arguments": {"source": "rent", "target": "savings", "amount": 50}},
    ]},
    {"user": "What is on Monday?", "calls": [{"name": "list_events", "arguments": {"day": "Monday"}}]},
]  # fmt: skip


def test_a_dialog_is_right_by_its_end_state_and_by_what_it_looked_up():
    gold = _played(STATE, TURNS)
    args = {"state": STATE, "turns": TURNS}

    def of(transcript):
        return score("dialog", args, json.dumps(transcript))

    assert of(gold).value == 1.0
    without_look = [gold[0], *gold[3:]]
    assert of(without_look).reason == "turn 1 lacks a result"
    without_transfer = [*gold[:3], *gold[5:]]
    assert of(without_transfer).reason == "another state after turn 1"
    assert of(gold[:6]).reason == "ends in turn 1 of 2"


def test_a_result_seen_in_an_earlier_turn_counts_but_a_turn_that_wants_calls_has_one():
    look, other = ("get_balance", {"account": "rent"}), ("list_events", {"day": "Monday"})
    turns = [
        {"user": "Look.", "calls": [{"name": look[0], "arguments": look[1]}]},
        {"user": "Again.", "calls": [{"name": look[0], "arguments": look[1]}]},
    ]

    def of(second):
        said = [{"role": "user", "content": "Look."}, called(look), says("Done.")]
        said += [{"role": "user", "content": "Again."}, *second, says("Done.")]
        return score("dialog", {"state": STATE, "turns": turns}, json.dumps(said))

    assert of([called(look)]).value == of([called(other)]).value == 1.0
    assert of([]).reason == "turn 2 has no call"


def test_a_call_that_cannot_be_done_changes_nothing():
    state = State(STATE)
    before = state.key()
    for name, arguments in [
        ("transfer", {"source": "rent", "target": "nowhere", "amount": 1}),
        ("transfer", {"source": "rent", "target": "savings", "amount": 1000}),
        ("transfer", {"source": "rent", "target": "savings", "amount": 1.5}),
        ("move_item", {"item": "map", "source": "red", "target": "blue"}),
        ("fly", {}),
    ]:
        assert "error" in run_call(state, name, arguments)
    assert state.key() == before
    assert run_call(state, "move_item", {"item": "key", "source": "red", "target": "blue"}) == {"moved": "key"}
