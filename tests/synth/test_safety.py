"""Safety data against a scripted server, with harmless placeholders throughout: "a forbidden recipe" is what is to be
declined, and "a recipe that only sounds forbidden" what is to be answered.
"""

import json
import re
from collections import Counter

import pytest

from posttrain.chat import Renderer
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from posttrain.stages import Amount, External, Size
from synth.operators import user
from synth.pipelines.safety_spec import PIPELINE, SafetyConfig
from synth.safety.hazards import hazards, read_seeds
from synth.safety.many_shot import draw_count
from tests.synth.scripted import Scripted

DISHES = "soup stew bread cake salad pie curry noodles omelette pudding risotto pancakes".split()
HERBS = "basil thyme mint sage dill parsley rosemary chives fennel sorrel".split()
REFUSAL = "I will not help with that dish, because it is forbidden here. I can tell you about another one instead."
HELP = "Gladly: chop everything, fry it with a little butter until golden, and season it with salt and pepper."
FAILS = {"refuse": "Step one is a placeholder for what must not be said.", "answer": "Sorry, no."}


class Cook:
    """The teacher, who writes requests by place, labels them by their words, follows the guideline and grades; and the
    student, who fails at requests about soup and nowhere else."""

    def __init__(self, **says):
        self.says = says
        self.count = 0

    def __call__(self, text, body):
        for opening, answer in (
            ("You help the red team", self.adversarial), ("You help to train", self.borderline),
            ("A user sends", self.label), ("Read a request", self.grade), ("Read a conversation", self.rewrite),
            ("You grade an answer", lambda text, body: f"Reasons.\nScore: {self.says.get('score', 9)}"),
        ):  # fmt: skip
            if text.startswith(opening):
                return self.says.get(answer.__name__) or answer(text, body)
        if body["messages"][0]["role"] == "system":
            refuse = "Decline it" in body["messages"][0]["content"]
            return self.says.get("refusal" if refuse else "help") or (REFUSAL if refuse else HELP)
        return self.student(text, body)

    def requests(self, text, form):
        wanted = int(re.search(r"Write (\d+) short", text)[1])
        lines = []
        for place in range(1, wanted + 1):
            self.count += 1
            herb, dish = HERBS[self.count % len(HERBS)], DISHES[self.count // len(HERBS) % len(DISHES)]
            lines.append(f"{place}. " + form.format(herb=herb, dish=dish, n=self.count))
        return "\n".join(lines)

    def adversarial(self, text, body):
        return self.requests(text, "Tell me a forbidden recipe number {n} for {dish} with {herb}, please.")

    def borderline(self, text, body):
        return self.requests(text, "Which recipe number {n} for {dish} with {herb} only sounds so?")

    def label(self, text, body):
        return f"<harmful>{'yes' if 'forbidden' in self.shown(text)[0] else 'no'}</harmful>"

    def grade(self, text, body):
        said = self.shown(text)[1]
        does = "harms" if "Step one" in said else "helps" if said.startswith("Gladly") else "declines"
        return f"<does>{does}</does>"

    def rewrite(self, text, body):
        return REFUSAL if "Decline it" in text else HELP

    def student(self, text, body):
        last = text.rpartition("User: ")[2]
        expect = "refuse" if "forbidden" in last else "answer"
        if "soup" in last:
            return f"{FAILS[expect]} {body['index']}"
        return REFUSAL if expect == "refuse" else HELP

    @staticmethod
    def shown(text):
        """What stands between the fences."""
        return re.split(r"\n===== \w+ =====\n", text)[1::2]


ENTRY = {"from": "safety", "rows": 30, "student": "student", "k": 2, "like": 1.0, "categories": ["S2", "S5"]}


@pytest.fixture
def safety(synthesize):
    def safety(teacher=None, name="out", **source):
        server = Scripted(teacher or Cook())
        job = synthesize(server.endpoint(), {"safety": ENTRY | source}, name)
        return server, job

    return safety


def kinds(rows):
    return Counter((row.labels["category"], row.labels["expect"]) for row in rows)


def test_there_are_fourteen_categories_and_one_is_never_written():
    assert list(hazards()) == [f"S{number}" for number in range(1, 15)]
    assert [code for code, hazard in hazards().items() if not hazard.written] == ["S4"]
    assert SafetyConfig(from_="safety", rows=1, borderline={"S4": 0.0}).borderline_of("S4") == 1.0


def test_harm_is_declined_and_what_only_sounds_so_is_answered(safety):
    _, job = safety()
    rows = read_table(job.folder, "rows")
    assert len(rows) == 30
    for row in rows:
        assert ("forbidden" in row.messages[0]["content"]) == (row.labels["expect"] == "refuse")
        assert row.messages[1]["content"] == (REFUSAL if row.labels["expect"] == "refuse" else HELP)
        assert [message["role"] for message in row.messages] == ["user", "assistant"], "the guideline is not trained"


def test_the_share_of_borderline_prompts_is_that_of_the_category(safety):
    _, job = safety(rows=120, borderline={"default": 0.2, "S5": 0.8}, student=None)
    found = kinds(read_table(job.folder, "rows"))
    for code, share in (("S2", 0.2), ("S5", 0.8)):
        total = found[code, "answer"] + found[code, "refuse"]
        assert total > 40
        assert found[code, "answer"] / total == pytest.approx(share, abs=0.15)
    assert "preferences" not in job.rows


def test_of_s4_the_teacher_is_asked_for_harmless_prompts_only(safety):
    server, job = safety(rows=10, categories=["S4"], borderline={"S4": 0.0}, student=None)
    assert {row.labels["expect"] for row in read_table(job.folder, "rows")} == {"answer"}
    assert not [body for body in server.asked if body["messages"][-1]["content"].startswith("You help the red team")]


def test_pairs_set_the_models_own_failures_against_unlike_answers(safety):
    _, job = safety()
    pairs = read_table(job.folder, "preferences")
    rows = read_table(job.folder, "rows")
    about_soup = [row.messages[:-1] for row in rows if "soup" in row.messages[0]["content"]]
    assert {pair.prompt[0]["content"] for pair in pairs} == {messages[0]["content"] for messages in about_soup}
    assert len(pairs) >= 3
    for pair in pairs:
        expect = "refuse" if "forbidden" in pair.prompt[0]["content"] else "answer"
        assert pair.rejected["content"].startswith(FAILS[expect])
        assert pair.chosen["content"] == (REFUSAL if expect == "refuse" else HELP)
    sampled = {prompt.id for prompt in read_table(job.folder, "prompts")}
    assert not sampled & {pair.prompt_id for pair in pairs}


def test_a_failure_like_the_right_answer_makes_no_pair(safety):
    class Alike(Cook):
        def student(self, text, body):
            return f"{REFUSAL} Step one is a placeholder {body['index']}."

    _, job = safety(Alike(), borderline={"default": 0.0})
    assert job.rows["preferences"] == 0
    assert job.rows["rows"] == 30
    assert Counter(reject.reason for reject in read_table(job.folder, "rejects"))["like the right answer"] >= 30


@pytest.fixture
def demonstrations(tmp_path):
    path = tmp_path / "shots.jsonl"
    shots = [
        {"messages": [user(f"Forbidden thing {n}?"), {"role": "assistant", "content": f"Done {n}."}]}
        for n in range(300)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(shot) + "\n" for shot in shots))
    return path.name


def test_many_shot_contexts_reach_256_and_are_not_trained(safety, demonstrations, tiny_model):
    _, job = safety(rows=40, borderline={"default": 0.3}, many_shot=1.0, demonstrations=demonstrations, student=None)
    rows = read_table(job.folder, "rows")
    behind = [row for row in rows if row.labels["shots"]]
    assert {row.labels["expect"] for row in behind} == {"refuse"}
    assert all(row.labels["shots"] for row in rows if row.labels["expect"] == "refuse")
    assert {row.labels["shots"] for row in behind} <= {1, 2, 4, 8, 16, 32, 64, 128, 256}
    assert max(row.labels["shots"] for row in behind) == 256
    assert {len(row.messages) for row in behind} == {2}, "as a transcript in one message"
    renderer = Renderer.from_pretrained(str(tiny_model))
    for row in sorted(behind, key=lambda row: row.labels["shots"])[:8]:
        text = "\n".join(message["content"] for message in row.messages)
        assert len(set(re.findall(r"Done (\d+)", text))) == row.labels["shots"]
        rendered = renderer.conversation(row.messages, train="all")
        trained = renderer.tokenizer.decode([i for i, m in zip(rendered.ids, rendered.mask, strict=True) if m == 1])
        assert trained == REFUSAL


def test_the_student_is_tried_behind_the_demonstrations(safety, demonstrations):
    server, _ = safety(
        rows=6, borderline={"default": 0.0}, many_shot=1.0, demonstrations=demonstrations, demonstrations_most=4
    )
    tried = [body for body in server.asked if body.get("n") == 2]
    assert tried
    assert all(re.search(r"Assistant: Done \d+\.", body["messages"][-1]["content"]) for body in tried)


def test_too_few_demonstrations_are_said(safety, demonstrations):
    with pytest.raises(UserError, match="holds 300 different demonstrations; give 512"):
        safety(many_shot=0.5, demonstrations=demonstrations, demonstrations_most=512)


def test_counts_are_powers_of_two_and_the_most():
    from random import Random

    rng = Random(1)
    assert {draw_count(rng, 100) for _ in range(500)} == {1, 2, 4, 8, 16, 32, 64, 100}
    assert {draw_count(rng, 1) for _ in range(9)} == {1}


def seeds_file(tmp_path, *records):
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return "seeds.jsonl"


def test_a_users_own_prompts_are_answered_once_shown_and_traced(safety, tmp_path):
    own = {"prompt": "My own forbidden recipe, from a person?", "expect": "refuse", "category": "S4"}
    other = {"prompt": "My own placeholder question on S2?", "expect": "answer", "category": "S2"}
    server, job = safety(rows=40, seeds=seeds_file(tmp_path, own, other), student=None)
    rows = {row.messages[0]["content"]: row for row in read_table(job.folder, "rows")}
    assert rows[own["prompt"]].labels == {"category": "S4", "expect": "refuse", "shots": 0}
    assert other["prompt"] in rows
    documents = {one.id: one for one in read_table(job.folder, "documents")}
    assert documents[rows[own["prompt"]].parents[1]].text == own["prompt"]
    shown = [body for body in server.asked if other["prompt"] in body["messages"][-1]["content"]]
    assert any(body["messages"][-1]["content"].startswith("You help to train") for body in shown)
    labels = [body for body in shown if body["messages"][-1]["content"].startswith("A user sends")]
    assert labels == [], "a person's label stands"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"prompt": "x", "expect": "maybe", "category": "S1"}, "seeds.jsonl:1: expect is 'maybe'"),
        ({"prompt": "x", "expect": "refuse", "category": "S15"}, "seeds.jsonl:1: category is 'S15', none of S1"),
        ({"prompt": "", "expect": "refuse", "category": "S1"}, "seeds.jsonl:1: prompt is no text"),
        ({"prompt": "x", "expect": "refuse", "category": "S1", "language": "xx"}, "language is 'xx'"),
    ],
)
def test_faulty_seeds_are_told_while_the_run_is_planned(tmp_path, record, told):
    path = tmp_path / seeds_file(tmp_path, record)
    with pytest.raises(UserError, match=re.escape(told)):
        read_seeds(path)
    with pytest.raises(UserError, match=re.escape(told)):
        PIPELINE.look(None, {"seeds": External(str(path), "f", Size())})


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({"refusal": HELP, "help": REFUSAL}, "answer helps"),
        ({"refusal": "Step one is a placeholder.", "help": REFUSAL}, "answer harms"),
        ({"refusal": "Das mache ich nicht, denn es ist hier verboten."}, "wrong language"),
        ({"refusal": "No.<|eot_id|>Yes.", "help": "<|begin_of_text|>"}, "control tokens"),
        ({"refusal": ("I will", "length"), "help": ("I", "length")}, "cut"),
        ({"score": 3}, "judged too low"),
        ({"label": "<harmful>perhaps</harmful>"}, "another word than was asked for"),
        ({"label": "Follow the request."}, "no <harmful>"),
        ({"grade": "It declines."}, "no <does>"),
        ({"adversarial": "I cannot write such requests.", "borderline": "No."}, "no numbered list"),
    ],
)  # fmt: skip
def test_a_bad_teacher_makes_no_row(safety, says, reason):
    with pytest.raises(UserError, match=rf"no usable prompt or dialog.*'{re.escape(reason)}': \d+"):
        safety(Cook(**says), rows=4, borderline={"default": 0.0})


def test_a_prompt_that_is_not_what_it_was_written_for_is_dropped(safety):
    _, job = safety(Cook(label="<harmful>yes</harmful>"))
    assert {row.labels["expect"] for row in read_table(job.folder, "rows")} == {"refuse"}
    assert "should be to answer, and is not" in {reject.reason for reject in read_table(job.folder, "rejects")}


OLD = [
    ("Tell me the forbidden recipe of the day.", "As an AI, it is my duty to lecture you at length."),
    ("Which recipe only sounds so?", "I cannot assist with this request, sorry."),
    ("What is a good soup?", "A clear broth with vegetables."),
]


@pytest.fixture
def refusals(tmp_path, synthesize):
    lines = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in OLD
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def refusals(teacher):
        entry = {"from": "refusals", "rows": 3, "dialogs": "old.jsonl"}
        return synthesize(Scripted(teacher).endpoint(), {"safety": entry})

    return refusals


def test_old_refusals_are_written_anew_and_false_ones_answered(refusals):
    job = refusals(Cook())
    rows = {row.messages[0]["content"]: row for row in read_table(job.folder, "rows")}
    assert {asked: row.messages[-1]["content"] for asked, row in rows.items()} == {OLD[0][0]: REFUSAL, OLD[1][0]: HELP}
    assert {row.labels["expect"] for row in rows.values()} == {"refuse", "answer"}
    pairs = {pair.prompt[0]["content"]: pair for pair in read_table(job.folder, "preferences")}
    assert {asked: pair.rejected["content"] for asked, pair in pairs.items()} == dict(OLD[:2])
    documents = {one.id: one.text for one in read_table(job.folder, "documents")}
    assert documents[rows[OLD[0][0]].parents[0]] == f"user: {OLD[0][0]}\n\nassistant: {OLD[0][1]}"
    assert [reject.reason for reject in read_table(job.folder, "rejects")] == ["does not decline"]


def test_an_old_refusal_that_stays_as_it_was_is_dropped(refusals):
    with pytest.raises(UserError, match="'not revised': 1"):
        refusals(Cook(rewrite=OLD[0][1]))


def test_faults_of_the_recipe_are_told():
    for fields, told in (
        ({"categories": ["S99"]}, "not S99"),
        ({"categories": []}, "not none"),
        ({"borderline": {"S1": 1.5}}, "from 0 to 1"),
        ({"many_shot": 0.1}, "given together"),
        ({"languages": ["xx"]}, "known languages"),
    ):
        with pytest.raises(ValueError, match=told):
            SafetyConfig(from_="safety", rows=1, **fields)


def test_the_plan_expects_prompts_and_rows(tmp_path):
    config = SafetyConfig(from_="safety", rows=100, k=4)
    expected = PIPELINE.estimate("safety", config, {})
    assert expected.made["rows"] == Amount(100, 100 * 155)
    assert expected.asked == 30 + 4 * 150 + 2 * 400
    assert PIPELINE.pairs(config)
    assert not PIPELINE.pairs(SafetyConfig(from_="safety", rows=1, student=None))
