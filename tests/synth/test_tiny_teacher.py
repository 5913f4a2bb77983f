"""Pipelines with a real teacher: the tiny one answers the operators' templates about its own world.

What it cannot do (judge, code, facts, documents, mined functions) is tested on a scripted server.
"""

import json
import random
from pathlib import Path

from posttrain.checks.tools import calculator
from posttrain.checks.verifiers import grade
from posttrain.data.tables import read_table
from posttrain.engines.protocol import open_engine
from posttrain.stages import Job
from synth.generate_spec import GenerateConfig
from synth.meter import Meter
from synth.operators import Work, revise, says, told, verify
from synth.operators.work import Staff
from synth.pipelines.general import BROKEN
from synth.prompts import operator_file, read_wording
from synth.world import heldout, make, multilingual, noise
from synth.world.base import Example
from synth.world.words import WORDS

TEACHER = str(Path(__file__).parents[2] / "posttrain" / "tiny" / "teacher")
LANGUAGES = ("de", "es", "hi", "th")


def write(folder, name, records):
    (folder / name).write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))
    return name


def stories(language, n, seed):
    """Examples of one language that fit on a line."""
    rng = random.Random(f"{language} {seed}")
    made: dict[str, Example] = {}
    while len(made) < n:
        one = make("multilingual", rng, "train", language=language)
        if one.spec["kind"] != "lookup":
            made[one.prompt.messages[0]["content"]] = one
    return made


def test_problems_are_translated_with_their_answers(synthesize, tmp_path):
    english = stories("en", 40, "reasoning")
    asked = [
        {"messages": [{"role": "user", "content": text}, one.gold], "language": "en"} for text, one in english.items()
    ]
    source = {"from": "multilingual", "rows": 24, "kinds": {"reasoning": 1.0}, "languages": list(LANGUAGES),
              "reasoning": write(tmp_path, "problems.jsonl", asked)}  # fmt: skip
    job = synthesize(TEACHER, {"multilingual": source}, max_new_tokens=96)
    rows = read_table(job.folder, "rows")
    known = {multilingual.told(one.spec, code): (one.spec, code) for one in english.values() for code in LANGUAGES}
    right = 0
    for row in rows:
        spec, language = known.get(row.messages[0]["content"], (None, None))
        right += spec is not None and multilingual.answer({**spec, "language": language}) == row.messages[1]["content"]
    assert len(rows) >= 20
    assert {row.language for row in rows} == set(LANGUAGES)
    assert right >= 0.8 * len(rows)


def test_new_prompts_in_a_language_come_from_its_seeds(synthesize, tmp_path):
    seeds = [{"prompt": text, "language": code} for code in LANGUAGES for text in stories(code, 12, "seeds")]
    source = {"from": "multilingual", "rows": 24, "kinds": {"native": 1.0}, "languages": list(LANGUAGES),
              "seeds": write(tmp_path, "seeds.jsonl", seeds), "temperature": 0.0}  # fmt: skip
    job = synthesize(TEACHER, {"multilingual": source}, max_new_tokens=250)
    prompts = read_table(job.folder, "prompts")
    assert len(prompts) >= 16
    assert {prompt.language for prompt in prompts} == set(LANGUAGES)
    for prompt in prompts:
        assert prompt.messages[0]["content"] not in {seed["prompt"] for seed in seeds}
        assert multilingual.in_script(prompt.messages[0]["content"], prompt.language)


def test_general_prompts_are_written_and_answered(synthesize, tmp_path):
    seeds = [prompt.messages[0]["content"] for prompt in heldout("instructions", 12, seed=3)]
    source = {"from": "general", "rows": 16, "constraints": 0.0, "system": 0.0, "revised": 0.0,
              "seeds": write(tmp_path, "seeds.jsonl", [{"prompt": text} for text in seeds])}  # fmt: skip
    job = synthesize(TEACHER, {"instructions": source}, max_new_tokens=250)
    rows = read_table(job.folder, "rows")
    assert len(rows) >= 12
    asked = {row.messages[0]["content"] for row in rows}
    assert len(asked) == len(rows) and not asked & set(seeds)
    assert sum(any(word in text for word in WORDS) for text in asked) == len(asked)


def test_a_calculation_is_asked_for_called_and_told(synthesize):
    source = {"from": "tools", "rows": 12, "tools": ["calculator"], "kinds": {"single": 0.7, "unneeded": 0.3},
              "sampled": True}  # fmt: skip
    job = synthesize(TEACHER, {"tool_use": source}, max_new_tokens=160)
    rows, prompts = read_table(job.folder, "rows"), read_table(job.folder, "prompts")
    assert len(rows) >= 8
    called = [row for row in rows if any("tool_calls" in message for message in row.messages)]
    assert len(called) >= 4
    for row in called:
        call = next(message for message in row.messages if "tool_calls" in message)["tool_calls"][0]["function"]
        result = next(message for message in row.messages if message["role"] == "tool")["content"]
        assert json.loads(result) == calculator.run(**call["arguments"])
    checks = {prompt.id: prompt.check for prompt in prompts}
    assert {grade(checks[row.parents[0]], row.messages[-1]).value for row in called} == {1.0}


def test_wrong_drafts_are_revised_into_right_answers(tmp_path):
    config = GenerateConfig(prompts={"instructions": {"from": "synth", "rows": 3}}, chunk=64)
    job, rejects = Job(config, {"teacher": TEACHER}, tmp_path, 5, 1, "synthesize"), []
    staff = Staff(lambda model: open_engine(model, job.machine))
    work = Work(job, "instructions", staff, rejects.append, Meter(lambda event: None, {"instructions": 3}))
    work.wordings["general/revise"] = read_wording(operator_file("general/revise"))
    rng = random.Random(4)
    items = []
    for number in range(60):
        task = make(("instructions", "multilingual")[number % 2], rng, "heldout", 1)
        wrong = rng.choice(noise.fitting([*sum(noise.ERRORS[task.spec["capability"]], ())], task.spec, task.gold))
        item = work.item({"number": number}, task.prompt.language)
        items.append(item.plus(conversation=told(task.prompt.messages), answer=wrong["content"], fault=BROKEN,
                               check=task.prompt.check))  # fmt: skip
    done = revise(work, items, "general/revise", of="answer", into="better", temperature=0.0)
    right = verify(work, [item.plus(said=says(item["better"])) for item in done], "check", "said")
    assert len(done) + sum(reject.reason == "not revised" for reject in rejects) >= 55
    assert len(right) >= 40
