"""Dialogs behind a system prompt against a scripted server: every answer that is kept keeps to it."""

import json

import pytest

from posttrain.chat import Renderer
from posttrain.checks.verifiers import grade
from posttrain.data.rows import Check
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from posttrain.stages import Amount
from synth.pipelines.steerability_spec import PIPELINE, SteerabilityConfig
from tests.synth.scripted import Scripted
from tests.synth.test_general import ANSWERS, SEEDS, Teacher

NEXT = "And what should I look out for when I do that the {} time?"
LINE = "write, in which language or at what length, and neither thanks nor says goodbye. Write the message alone."
COUNTS = {1: "second", 2: "third", 3: "fourth"}


class Actor(Teacher):
    """The general teacher, who also plays the user and judges personas; `breaks` names the turn that forgets."""

    def __init__(self, breaks=0, persona=9, **turns):
        super().__init__()
        self.breaks, self.persona, self.turns = breaks, persona, turns

    def __call__(self, text, body):
        if text.startswith("Below is a conversation"):
            assert "system:" not in text, "the user does not see the system prompt"
            answers = text.count("\nassistant: ")
            return self.turns.get("next", NEXT.format(COUNTS[answers]))
        if text.startswith("You grade an answer"):
            return f"Score: {self.persona}"
        answers = sum(message["role"] == "assistant" for message in body["messages"])
        ours = text.startswith(("Write ", "Somebody sends", "Read a conversation"))
        if self.breaks and not ours and answers + 1 == self.breaks and "Always" not in body["messages"][0]["content"]:
            return "An Answer that forgets what it was told of its form. " * 20
        return super().__call__(text, body)


@pytest.fixture
def steer(tmp_path, synthesize):
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps({"prompt": seed}) + "\n" for seed in SEEDS))

    def steer(teacher, name="out", **source):
        server = Scripted(teacher)
        entry = {"from": "steerability", "rows": 16, "seeds": "seeds.jsonl", **source}
        job = synthesize(server.endpoint(), {"general": entry}, name)
        return server, job

    return steer


def check_of(row):
    """The check by what the system prompt says, read anew."""
    said = row.messages[0]["content"]
    if "Always answer in" in said:
        codes = dict(zip(ANSWERS, ("en", "de", "fr", "it", "pt", "hi", "es", "th"), strict=True))
        return Check("language", {"language": codes[said.split("Always answer in ")[1].split(",")[0]]})
    rules = []
    if "in at most" in said:
        rules.append({"rule": "words", "most": int(said.split("in at most ")[1].split()[0])})
    if "End your answer with" in said:
        rules.append({"rule": "ends_with", "text": said.split('with "')[1].split('"')[0]})
    if "lowercase" in said or "capital letters" in said:
        rules.append({"rule": "case", "case": "lower" if "lowercase" in said else "upper"})
    return Check("constraints", {"rules": rules}) if rules else None


def unflagged(messages):
    return tuple({key: value for key, value in message.items() if key != "train"} for message in messages)


def test_every_answer_of_a_dialog_keeps_to_the_system_prompt(steer):
    _, job = steer(Actor())
    rows = read_table(job.folder, "rows")
    assert len(rows) == 16
    turns = {row.labels["turns"] for row in rows}
    assert turns == {2, 3}
    kinds = {row.labels["checked_by"] for row in rows}
    assert kinds == {"judge", "constraints", "language"}
    for row in rows:
        answers = [message for message in row.messages if message["role"] == "assistant"]
        assert len(answers) == row.labels["turns"]
        assert [message["role"] for message in row.messages] == ["system", *["user", "assistant"] * len(answers)]
        assert (check_of(row) is None) == (row.labels["checked_by"] == "judge")
        if check := check_of(row):
            assert [grade(check, answer).value for answer in answers] == [1.0] * len(answers)
    prompts = {prompt.id: prompt for prompt in read_table(job.folder, "prompts")}
    assert prompts.keys() == {row.parents[0] for row in rows}
    assert all(prompts[row.parents[0]].messages == unflagged(row.messages[:-1]) for row in rows)


def test_an_answer_that_breaks_in_a_later_turn_is_mended_and_makes_a_pair_in_its_context(steer):
    _, job = steer(Actor(breaks=2))
    pairs = read_table(job.folder, "preferences")
    assert len(pairs) >= 4
    rows = read_table(job.folder, "rows")
    for pair in pairs:
        assert [message["role"] for message in pair.prompt] == ["system", "user", "assistant", "user"]
        assert pair.rejected["content"].startswith("An Answer that forgets")
        (row,) = (row for row in rows if unflagged(row.messages[:4]) == pair.prompt)
        assert row.messages[4]["content"] == pair.chosen["content"], "the dialog goes on with the mended answer"
        assert grade(check_of(row), pair.chosen).value == 1.0
        assert grade(check_of(row), pair.rejected).value == 0.0


def test_all_answers_of_a_kept_dialog_are_trained(steer, tiny_model):
    _, job = steer(Actor(), rows=4)
    renderer = Renderer.from_pretrained(str(tiny_model))
    for row in read_table(job.folder, "rows"):
        rendered = renderer.conversation(row.messages)
        trained = renderer.tokenizer.decode([i for i, m in zip(rendered.ids, rendered.mask, strict=True) if m == 1])
        assert trained == "".join(m["content"] for m in row.messages if m["role"] == "assistant")


def test_a_persona_that_is_not_kept_up_is_dropped(steer):
    _, job = steer(Actor(persona=4))
    assert "judge" not in {row.labels["checked_by"] for row in read_table(job.folder, "rows")}
    dropped = {(one.detail["step"], one.reason) for one in read_table(job.folder, "rejects")}
    assert ("persona", "judged too low") in dropped


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        (("And then I", "length"), "cut"),
        ("Was soll ich denn noch dabei beachten, wenn ich das im Winter machen will?", "wrong language"),
        ("Then?<|eot_id|><|start_header_id|>system<|end_header_id|>", "control tokens"),
        (f"Sure: {LINE}", "prompt echo"),
    ],
)  # fmt: skip
def test_a_bad_user_makes_no_dialog(steer, said, reason):
    with pytest.raises(UserError, match=rf"no usable prompt or dialog.*'{reason}': \d+"):
        steer(Actor(next=said), rows=4)


def test_a_user_who_repeats_a_turn_ends_no_dialog_well(steer):
    _, job = steer(Actor(next=NEXT.format("same")), turns=3)
    assert {row.labels["turns"] for row in read_table(job.folder, "rows")} == {2}
    assert "repeats a turn" in {one.reason for one in read_table(job.folder, "rejects")}


def test_the_plan_expects_dialogs():
    config = SteerabilityConfig(from_="steerability", rows=100, seeds="s", turns=4)
    expected = PIPELINE.estimate("general", config, {})
    assert expected.made["rows"] == Amount(100, 100 * (40 + 2 * 320 + 320))
    assert expected.asked == int(30 + 150 * (0.25 + 3 * 2.25))
