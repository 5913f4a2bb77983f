"""The gate on hand-made evaluations: when it fails, what it keeps, and how it is wired."""

import json
from types import SimpleNamespace

import pytest

from eval.false_alarms import false_alarms
from eval.gate import reach, run
from eval.gate_spec import SPEC, GateConfig
from posttrain.data.rows import Prompt, Response, Score
from posttrain.data.tables import write_table
from posttrain.errors import StoppedByGate, UserError
from posttrain.stages import Job

PROMPTS = [Prompt(({"role": "user", "content": f"{i}"},), "ab"[i % 2]) for i in range(200)]


def evaluation(folder, right, said="x", tokens=1, report=()):
    """An evaluation in which the prompts for which `right(number)` holds are answered well."""
    folder.mkdir(parents=True)
    responses = [Response(prompt.id, 0, said, "stop", tokens, None) for prompt in PROMPTS]
    scores = [Score(response.id, "verifier", float(right(i))) for i, response in enumerate(responses)]
    write_table(folder, "responses", responses)
    write_table(folder, "scores", scores)
    rates = {name: {"accuracy": accuracy} for name, accuracy in dict(report).items()}
    found = {"who": folder.name, "overall": {"accuracy": 0.5}, "capability": rates}
    (folder / "report.json").write_text(json.dumps(found))
    (folder / "manifest.json").write_text("{}")
    return folder


def checkpoint(folder):
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "manifest.json", "stage.log"):
        (folder / name).write_text(f"{name} of {folder.name}")
    return folder


@pytest.fixture
def gate(tmp_path):
    """Run the gate on a candidate and a previous checkpoint, with what each answered right."""

    def gate(right_before, right_after, said=("x", "x"), tokens=(1, 1), report=(), **config):
        inputs = {
            "candidate": checkpoint(tmp_path / "new"),
            "evaluation": evaluation(tmp_path / "new-evaluation", right_after, said[1], tokens[1], report),
            "previous": checkpoint(tmp_path / "old"),
            "prompts": [tmp_path],
        }
        if right_before:
            inputs["previous_evaluation"] = evaluation(tmp_path / "old-evaluation", right_before, said[0], tokens[0])
        write_table(tmp_path, "prompts", PROMPTS)
        (tmp_path / "kept").mkdir()
        job = Job(GateConfig(**config), inputs, tmp_path / "kept", 0, 2, "gate")
        run(job)
        return job

    return gate


def kept(job):
    return (job.folder / "model.safetensors").read_text().removeprefix("model.safetensors of ")


def every(share):
    """Right on about `share` of both capabilities: prompts come in fives of each."""
    return lambda number: (number // 2) % 5 < 5 * share


def test_a_better_model_is_kept_with_its_files_and_its_evaluation(gate, tmp_path):
    job = gate(every(0.2), every(0.6))
    assert (job.summary["passed"], job.summary["kept"], kept(job)) == (True, "candidate", "new")
    assert job.summary["change"]["overall"]["change"] == pytest.approx(0.4)
    assert job.summary["change"]["overall"]["significant"]
    assert sorted(path.name for path in job.folder.iterdir()) == [
        "config.json", "evaluation", "model.safetensors", "verdict.json",
    ]  # fmt: skip
    assert json.loads((job.folder / "evaluation" / "report.json").read_text())["who"] == "new-evaluation"
    assert not (job.folder / "evaluation" / "manifest.json").exists()
    assert (job.folder / "config.json").samefile(tmp_path / "new" / "config.json")
    assert json.loads((job.folder / "verdict.json").read_text()) == job.summary


def test_a_worse_model_is_dropped_for_the_previous(gate):
    job = gate(every(0.6), every(0.2))
    assert (job.summary["passed"], job.summary["kept"], kept(job)) == (False, "previous", "old")
    assert job.summary["failed"] == ["overall", "a", "b"]
    assert json.loads((job.folder / "evaluation" / "report.json").read_text())["who"] == "old-evaluation"


def test_warn_keeps_the_worse_model_and_says_so(gate):
    job = gate(every(0.6), every(0.2), on_fail="warn")
    assert (job.summary["passed"], job.summary["kept"], kept(job)) == (False, "candidate", "new")


def test_stop_says_what_fell_and_by_how_much(gate, tmp_path):
    with pytest.raises(StoppedByGate, match=r"round 2: overall changed by -40.0 points \(95% -46.* below −2") as caught:
        gate(every(0.6), every(0.2), on_fail="stop")
    assert caught.value.exit_code == 4
    assert not list((tmp_path / "kept").iterdir())


def test_one_fallen_capability_fails_all_but_not_a_gate_on_the_other(gate, tmp_path):
    def only_a(number):
        return number % 2 == 0

    job = gate(lambda number: True, only_a, no_worse_than_previous=["a"])
    assert job.summary["passed"]
    assert job.summary["change"]["capability"]["b"]["change"] == -1.0


def test_a_loss_within_the_interval_or_the_margin_passes(gate):
    """Two of 200 lost: −1 point, upper end above −2 points."""
    job = gate(lambda number: True, lambda number: number not in (0, 1))
    assert job.summary["passed"]
    assert job.summary["change"]["overall"]["change"] == pytest.approx(-0.01)


def test_a_wide_margin_tolerates_a_real_loss(gate):
    assert gate(every(0.6), every(0.2), margin=0.5).summary["passed"]


def test_none_compares_and_refuses_nothing(gate):
    job = gate(every(0.6), every(0.2), no_worse_than_previous="none")
    assert (job.summary["passed"], job.summary["change"]["overall"]["significant"]) == (True, True)


def next_gate(first, tmp_path):
    """The gate of the round after, which finds the first one's folder in place of a checkpoint and an evaluation."""
    inputs = {
        "candidate": tmp_path / "new", "evaluation": tmp_path / "new-evaluation", "prompts": [tmp_path],
        "previous": first.folder, "previous_evaluation": first.folder,
    }  # fmt: skip
    (tmp_path / "next").mkdir()
    job = Job(GateConfig(), inputs, tmp_path / "next", 0, 3, "gate")
    run(job)
    return job


def test_a_failed_minimum_keeps_a_previous_checkpoint_that_nobody_evaluated(gate, tmp_path):
    """There is no evaluation to keep then, and the next gate finds none to compare with."""
    first = gate(None, every(0.6), minimum={"a": 0.7}, report={"a": 0.6})
    assert (first.summary["passed"], first.summary["kept"], kept(first)) == (False, "previous", "old")
    assert not (first.folder / "evaluation").exists()
    job = next_gate(first, tmp_path)
    assert (job.summary["kept"], kept(job)) == ("candidate", "new")
    assert job.summary["note"] == "there is no earlier evaluation to compare with"


def test_without_an_earlier_evaluation_it_passes_and_says_why(gate):
    job = gate(None, every(0.2))
    assert (job.summary["passed"], job.summary["note"]) == (True, "there is no earlier evaluation to compare with")


def test_a_capability_that_is_not_evaluated_is_refused(gate):
    with pytest.raises(UserError, match="'c' is not evaluated; evaluated are overall, a, b"):
        gate(every(0.2), every(0.2), no_worse_than_previous=["c"])


def test_the_next_gate_reads_the_kept_evaluation_inside_a_gates_folder(gate, tmp_path):
    first = gate(every(0.6), every(0.2))
    job = next_gate(first, tmp_path)
    assert (job.summary["kept"], kept(job)) == ("previous", "old")
    assert (job.folder / "evaluation" / "report.json").is_file()
    assert job.summary["change"]["overall"]["change"] == pytest.approx(-0.4)


class StandingScope:
    """A round 2 in which these nodes stand before the gate."""

    round, name = 2, "gate"

    def __init__(self, *nodes):
        self.nodes = nodes

    def all_rounds(self, kind):
        return [node for node in self.nodes if kind in node.kinds]

    def this_round(self, kind):
        return [node for node in self.all_rounds(kind) if node.round == self.round]

    def newest(self, kind, optional=False):
        return (self.all_rounds(kind) or [None])[-1]

    def model(self, name):
        return f"model {name}"


def node(name, round, *kinds, model=None):
    return SimpleNamespace(name=name, round=round, kinds=kinds, inputs={"model": model})


def test_wiring_takes_the_kept_evaluation_of_the_round_before():
    dpo = node("dpo", 2, "checkpoint")
    before, kept_before = node("evaluate-dpo", 1, "evaluation"), node("gate", 1, "checkpoint", "evaluation_kept")
    now = node("evaluate-dpo", 2, "evaluation", model=dpo)
    wired = SPEC.wire(GateConfig(), StandingScope(before, kept_before, dpo, now))
    assert (wired["candidate"], wired["evaluation"], wired["previous_evaluation"]) == (dpo, now, kept_before)
    assert wired["previous"] == "model previous"


def test_wiring_falls_back_to_the_newest_evaluation_before_the_round():
    dpo, base = node("dpo", 2, "checkpoint"), node("evaluate-base", 0, "evaluation")
    now = node("evaluate-dpo", 2, "evaluation", model=dpo)
    assert SPEC.wire(GateConfig(), StandingScope(base, dpo, now))["previous_evaluation"] is base
    assert SPEC.wire(GateConfig(), StandingScope(dpo, now))["previous_evaluation"] is None


def test_wiring_refuses_a_candidate_that_was_not_evaluated_last():
    sft, dpo = node("sft", 2, "checkpoint"), node("dpo", 2, "checkpoint")
    with pytest.raises(UserError, match=r"end the list `evaluate.after` with dpo"):
        SPEC.wire(GateConfig(), StandingScope(sft, dpo, node("evaluate-sft", 2, "evaluation", model=sft)))
    with pytest.raises(UserError, match="no stage before it in this round makes a checkpoint"):
        SPEC.wire(GateConfig(), StandingScope())


def test_a_minimum_is_asked_of_the_candidate_alone(gate):
    job = gate(every(0.6), every(0.6), minimum={"a": 0.5}, report={"a": 0.6})
    assert job.summary["passed"]


def test_a_candidate_below_its_minimum_is_dropped(gate):
    job = gate(every(0.6), every(0.6), minimum={"a": 0.7, "overall": 0.1}, report={"a": 0.6})
    assert (job.summary["failed"], job.summary["kept"]) == (["a"], "previous")
    assert job.summary["reasons"] == ["a is at 60.0, below its minimum of 70"]


def test_a_minimum_of_what_is_not_evaluated_is_refused(gate):
    with pytest.raises(UserError, match=r"gate\.minimum: 'c' is not evaluated; evaluated are overall, a"):
        gate(every(0.6), every(0.6), minimum={"c": 0.7}, report={"a": 0.6})


@pytest.mark.parametrize(
    ("limits", "said", "failed"),
    [
        ({"length": 0.3}, "x", ["drift of length"]),
        ({"length": 5.0}, "x", []),
        ({"refusals": 0.05}, "I can't help with that.", ["drift of refusals"]),
        ({"refusals": 0.05}, "Here is how it is done.", []),
        ({"language": 0.1}, "Das ist ein ganz einfacher deutscher Satz.", ["drift of language"]),
        ({"repetition": 0.2}, "so it goes on and " * 8, ["drift of repetition"]),
        ({}, "I can't help with that.", []),
    ],
)
def test_answers_that_drift_beyond_a_limit_fail_the_gate(gate, limits, said, failed):
    job = gate(every(0.6), every(0.6), drift=limits, said=("This is a plain English sentence.", said), tokens=(10, 40))
    assert job.summary["failed"] == failed
    for name, limit in limits.items():
        assert job.summary["drift"][name]["limit"] == limit


def test_more_guarded_parts_have_wider_intervals():
    assert reach(1) == pytest.approx(1.96, abs=1e-3)
    assert reach(5) == pytest.approx(2.409, abs=1e-3)


@pytest.mark.parametrize("suites", [1, 8])
def test_the_whole_gate_raises_few_false_alarms(suites):
    """Nothing has changed and no margin helps; 250 rounds may show a little more than the true share."""
    assert false_alarms(suites, 100, 0.3, rounds=250) <= 0.075
