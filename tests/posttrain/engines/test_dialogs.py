"""Dialogs whose calls are run, with a scripted model: what is asked, what is kept, where they end."""

import json
from dataclasses import dataclass, field

import pytest

from posttrain.chat.parse import parse_message
from posttrain.data.rows import Prompt
from posttrain.engines.dialogs import hold
from posttrain.engines.protocol import Completion, Sampling, sample_seed
from posttrain.errors import Interrupted
from posttrain.stages import Job


class Reader:
    dialect = "posttrain"

    def message(self, text):
        return parse_message(text)


@dataclass
class Scripted:
    """Answers by a function of the messages and the sample's number; `asked` keeps every request."""

    script: object
    renderer: Reader = field(default_factory=Reader)
    independent: bool = False
    lanes: int = 1
    account: None = None
    asked: list = field(default_factory=list)

    def generate(self, requests, sampling):
        for request in requests:
            self.asked.append(request)
            yield [self._one(request, index) for index in range(sampling.n)]

    def _one(self, request, index):
        text, finish = self.script(request.messages, index)
        seed = sample_seed(request.seed, index)
        return Completion(request.id, index, text, tuple(range(len(text))), -1.0, finish, seed)


def call(x):
    return json.dumps({"name": "double", "parameters": {"x": x}})


def double(messages):
    calls = messages[-1].get("tool_calls") or []
    return [{"role": "tool", "content": str(2 * c["function"]["arguments"]["x"])} for c in calls]


PROMPT = Prompt(({"role": "user", "content": "Double 3."},), "tools")
OTHER = Prompt(({"role": "user", "content": "Say hi."},), "tools")


def talk(tmp_path, script, prompts=(PROMPT,), n=1, most=4, reply=double, **more):
    engine = Scripted(script)
    job = Job(config=None, inputs={}, folder=tmp_path, seed=3, name="sample", **more)
    found = hold(
        job, engine, prompts, lambda prompt: reply, Sampling(n=n), chunk=8, model="m", journal="r", most=most
    )  # fmt: skip
    return found, engine


def after_results(messages, index):
    """Calls once (the second sample twice), then says the last result; says hi where nothing is to be doubled."""
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if messages[0] == OTHER.messages[0]:
        return "hi", "stop"
    return (call(3 + index), "stop") if not results else (f"It is {results[-1]}.", "stop")


def test_calls_are_run_and_each_sample_goes_its_own_way(tmp_path):
    found, engine = talk(tmp_path, after_results, (PROMPT, OTHER), n=2)
    of = {(d.prompt.id, d.first.index): d for d in found}
    assert [of[OTHER.id, i].text for i in (0, 1)] == ["hi", "hi"] and of[OTHER.id, 0].steps == ()
    for index, result in ((0, "6"), (1, "8")):
        dialog = of[PROMPT.id, index]
        assert dialog.text == f"It is {result}." and dialog.finish == "stop"
        assert [m["role"] for m in dialog.steps] == ["assistant", "tool"]
        assert dialog.steps[1] == {"role": "tool", "content": result}
        assert dialog.tokens == len(call(3)) + len("It is 6.") and dialog.logprob == -2.0
    assert len(engine.asked) == 2 + 2  # both prompts once for their samples, then each open sample alone
    assert len({request.seed for request in engine.asked}) == 4


def test_who_calls_for_ever_is_given_up_as_cut(tmp_path):
    (dialog,), engine = talk(tmp_path, lambda messages, index: (call(len(messages)), "stop"), most=3)
    assert (dialog.finish, len(engine.asked)) == ("length", 3)
    assert [m["role"] for m in dialog.said] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert len(dialog.steps) == 4


def test_a_dialog_without_room_for_the_next_message_counts_as_cut(tmp_path):
    (dialog,), _ = talk(tmp_path, lambda m, i: (call(1), "stop") if len(m) == 1 else ("", "too_long"))
    assert (dialog.finish, dialog.text, [m["role"] for m in dialog.steps]) == ("length", "", ["assistant", "tool"])


@pytest.mark.parametrize(("text", "finish"), [(call(1), "length"), ("too long a prompt", "too_long"), ("", "stop")])
def test_what_is_cut_refused_or_empty_at_once_runs_nothing(tmp_path, text, finish):
    (dialog,), engine = talk(tmp_path, lambda messages, index: (text, finish))
    assert (dialog.finish, dialog.text, dialog.steps, len(engine.asked)) == (finish, text, (), 1)


def test_a_user_who_speaks_again_begins_a_new_count(tmp_path):
    def reply(messages):
        users = sum(message["role"] == "user" for message in messages)
        return double(messages) or ([{"role": "user", "content": "And again."}] if users < 3 else [])

    def script(messages, index):
        return (call(1), "stop") if messages[-1]["role"] == "user" else ("Done.", "stop")

    (dialog,), engine = talk(tmp_path, script, most=2, reply=reply)
    assert dialog.finish == "stop" and len(engine.asked) == 6
    assert sum(m["role"] == "user" for m in dialog.said) == 2


def test_a_stopped_stage_asks_for_no_message_twice(tmp_path):
    whole, _ = talk(tmp_path, after_results, n=2)
    folder = tmp_path / "stopped"
    folder.mkdir()
    answers = iter([False, True])
    with pytest.raises(Interrupted):
        talk(folder, after_results, n=2, stopping=lambda: next(answers))
    again, engine = talk(folder, after_results, n=2)
    assert engine.asked == []
    assert [(d.text, d.said, d.first) for d in again] == [(d.text, d.said, d.first) for d in whole]
