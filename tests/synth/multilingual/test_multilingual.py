"""The multilingual pipeline against a scripted server; the files are written here."""

import json
import re
from collections import Counter

import pytest
from pydantic import ValidationError

from posttrain.checks.language import identify
from posttrain.data.rows import LANGUAGES
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from synth.generate_spec import GenerateConfig
from synth.multilingual.matching import latin, matches, numbers, unlike
from synth.multilingual.phrases import PHRASES
from tests.synth.scripted import Scripted

PROBLEM = (
    "A box holds 1,250 pears and 30 plums. How many pieces of fruit does it hold?",
    "1,250 + 30 = 1,280. It is 1,280.",
)
GERMAN = {
    PROBLEM[0]: "Eine Kiste enthält 1.250 Birnen und 30 Pflaumen. Wie viele Früchte enthält sie?",
    PROBLEM[1]: "Wir rechnen 1.250 + 30 = 1.280. Die Antwort lautet 1.280.",
}
NEW = {
    "German": "Wie {0} ich den alten {1} meiner Großmutter, bevor der Winter kommt?",
    "Hindi": "main apne ghar mein {0} aur {1} kaise rakhta hoon, bataiye?",
}
ANSWERS = {
    "German": "Das geht am besten langsam und mit einem trockenen Tuch, denn Wasser schadet dem Holz.",
    "Hindi": "aap apne ghar mein sab kuch saaf rakhiye, phir koi dikkat nahi hogi.",
}
DEVANAGARI = "आप अपने घर में सब कुछ साफ रखिए, फिर कोई दिक्कत नहीं होगी।"
VERBS = "putze repariere male öle schleife lagere trage stelle".split()
THINGS = "Schrank Tisch Stuhl Spiegel Teppich Ofen Koffer Wagen".split()


class Teacher:
    """Writes prompts by the examples' language, answers in it, and translates what it knows; `says` changes answers."""

    def __init__(self, german=GERMAN, **says):
        self.german, self.says = german, {**ANSWERS, **says}

    def __call__(self, text, body):
        if text.startswith("Translate the text"):
            return self.german[re.search(r"====\n(.*)\n====", text, re.DOTALL)[1]]
        if " new requests " in text:
            language = re.search(r"live with the (\w+) language", text)[1]
            wanted = int(re.search(r"Write (\d+) new", text)[1])
            return "\n".join(f"{n}. {self.prompt(language, body['seed'] + 7 * n)}" for n in range(1, wanted + 1))
        return self.says["German" if identify(text)[0] == "de" else "Hindi"]

    def prompt(self, language, number):
        return NEW[language].format(VERBS[number % 8], THINGS[number // 8 % 8])


def lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


@pytest.fixture
def made(tmp_path, synthesize):
    lines(tmp_path / "human.jsonl", [
        {"messages": [{"role": "user", "content": f"Wie alt ist der Baum Nummer {n} in unserem Garten?"},
                      {"role": "assistant", "content": "Das sieht man an den Ringen des Stammes."}], "language": "de"}
        for n in range(5)
    ])  # fmt: skip
    lines(tmp_path / "tasks.jsonl", [
        *({"question": f"Welche Stadt liegt an der Elbe, Nummer {n}?", "choices": ["Dresden", "Köln", "Ulm"],
           "answer": "Dresden", "language": "de"} for n in range(12)),
        *({"source": f"The house has {n} windows and one door.", "source_language": "en", "target_language": "de",
           "target": f"Das Haus hat {n} Fenster und eine Tür."} for n in range(12)),
    ])  # fmt: skip
    lines(tmp_path / "seeds.jsonl", [
        {"prompt": "Wie pflege ich meine alten Möbel richtig?", "language": "de"},
        {"prompt": "mujhe ghar ki safai ke liye kya chahiye, bataiye", "language": "hi"},
    ])  # fmt: skip
    lines(tmp_path / "problems.jsonl", [{"messages": [
        {"role": "user", "content": PROBLEM[0]}, {"role": "assistant", "content": PROBLEM[1]},
    ]}])  # fmt: skip
    files = {"human": "human.jsonl", "tasks": "tasks.jsonl", "seeds": "seeds.jsonl", "reasoning": "problems.jsonl"}

    def made(rule, name="out", **source):
        entry = {"from": "multilingual", "rows": 20, "languages": ["en", "de", "hi"], **files, **source}
        server = Scripted(rule)
        job = synthesize(server.endpoint(), {"multilingual": entry}, name)
        return server, {table: read_table(job.folder, table) for table in ("prompts", "rows", "rejects")}, job

    made.folder = tmp_path
    return made


def of_kind(tables, kind):
    return [row for row in tables["rows"] if row.labels["kind"] == kind]


def test_a_budget_is_spent_in_waves(made):
    """3,000 rows at once would be 900 requests for prompts; a wave of 32 rows, which is 10, shows what one costs."""
    seeds = ({"prompt": f"Wie pflege ich meine {n} alten Möbel richtig?", "language": "de"} for n in range(40))
    lines(made.folder / "seeds.jsonl", seeds)
    server, tables, job = made(Teacher(), kinds={"native": 1}, rows=3000, budget={"tokens": 1500})
    assert 750 <= job.summary["spent"]["multilingual"]["tokens"] <= 2250
    asked = [" new requests " in body["messages"][-1]["content"] for body in server.asked]
    assert asked.index(False) == 10
    assert tables["rows"]


def test_the_kinds_have_their_shares_and_every_row_is_in_its_language(made):
    server, tables, job = made(Teacher(), kinds={"human": 2, "tasks": 10, "native": 8}, rows=20)
    assert Counter(row.labels["kind"] for row in tables["rows"]) == {"human": 2, "tasks": 10, "native": 8}
    for row in tables["rows"]:
        assert identify(row.messages[-1]["content"])[0] in (row.language, "und")
    report = json.loads((job.folder / "report.json").read_text())["capabilities"]["multilingual"]
    assert report["labels"] == {"kind": {"human": 2, "native": 8, "tasks": 10}}
    german = [row.messages[-2]["content"].lower() for row in tables["rows"] if row.language == "de"]
    words = [word for text in german for word in re.findall(r"\w+", text)]
    shown = report["languages"]["de"]["diversity"]["distinct_1"]
    assert shown == pytest.approx(len(set(words)) / len(words), abs=0.02)
    native = of_kind(tables, "native")
    assert {row.language for row in native} == {"de", "hi"}
    assert all(latin(message["content"]) for row in native for message in row.messages)
    assert {prompt.id for prompt in tables["prompts"]} == {row.parents[0] for row in native}
    answered = [body for body in server.asked if "new requests" not in body["messages"][-1]["content"]]
    assert len({body["temperature"] for body in answered}) > 1
    assert all(0.2 <= body["temperature"] <= 1.0 for body in answered)


def test_the_default_shares_are_the_papers():
    fields = {"human": "h", "tasks": "t", "seeds": "s", "reasoning": "r"}
    source = GenerateConfig(prompts={"m": {"from": "multilingual", "rows": 1000, **fields}}).prompts["m"]
    assert source.kinds == {"human": 2.4, "tasks": 44.2, "native": 18.8, "reasoning": 34.6}


def test_tasks_are_asked_in_templates_of_their_language(made):
    _, tables, _ = made(Teacher(), kinds={"tasks": 1}, rows=24)
    assert len(tables["rows"]) == 24
    for row in tables["rows"]:
        asked, told = row.messages[0]["content"], row.messages[1]["content"]
        if "Elbe" in asked:
            letter = re.search(r"^([A-C])\. Dresden$", asked, re.MULTILINE)[1]
            assert told == f"Richtig ist die Antwort {letter}: Dresden"
            assert asked.endswith(PHRASES["de"].choose)
        else:
            assert asked.startswith(PHRASES["de"].into) and told.startswith("Das Haus hat")
    letters = Counter(
        row.messages[1]["content"][24] for row in tables["rows"] if "Richtig" in row.messages[1]["content"]
    )
    assert len(letters) > 1
    documents = {one.id: one for one in read_table(made.folder / "out", "documents")}
    assert all(documents[row.parents[0]].title.startswith("tasks.jsonl:") for row in tables["rows"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"source": "It is 5 o'clock now.", "target": "Es ist jetzt 6 Uhr."}, "other numbers"),
        ({"source": "This is the house that I like.", "target": "This is the house that I like."}, "not translated"),
        ({"source": "Hello there, my good friend of old!", "target": "Hallo " * 40}, "other length"),
        ({"source": "See <|eot_id|> there, friend.", "target": "Siehe <|eot_id|> dort, Freund."}, "control tokens"),
        ({"source": "Where is the old house?", "target": "Où est la vieille maison de la rue ?"}, "wrong language"),
    ],
)
def test_bad_parallel_text_is_dropped(made, record, reason):
    record = {"source_language": "en", "target_language": "de", **record}
    lines(made.folder / "tasks.jsonl", [record])
    with pytest.raises(UserError, match=rf"'{reason}': 1"):
        made(Teacher(), kinds={"tasks": 1})


def test_a_record_that_is_no_task_is_named(made):
    lines(made.folder / "tasks.jsonl", [{"question": "Was?", "language": "de"}])
    with pytest.raises(UserError, match=r"tasks\.jsonl:1: lacks the text 'answer'"):
        made(Teacher(), kinds={"tasks": 1})


def test_reasoning_is_translated_with_its_numbers(made):
    _, tables, _ = made(Teacher(), kinds={"reasoning": 1}, rows=1, languages=["de"])
    (row,) = tables["rows"]
    assert [message["content"] for message in row.messages] == list(GERMAN.values())
    assert row.language == "de"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({PROBLEM[1]: "Wir rechnen 1.250 + 30 = 1.290. Die Antwort lautet 1.290."}, "other numbers"),
        ({PROBLEM[1]: PROBLEM[1] + " This is the answer to it."}, "wrong language"),
        ({PROBLEM[0]: ""}, "empty"),
        ({PROBLEM[0]: ("Eine Kiste enthält", "length")}, "cut"),
        (
            {PROBLEM[0]: "Write the translation alone. Keep names, numbers, code and formatting as they are."},
            "wrong language",
        ),
    ],
)
def test_bad_translations_make_no_row(made, wrong, reason):
    with pytest.raises(UserError, match=rf"'{reason}': \d+"):
        made(Teacher({**GERMAN, **wrong}), kinds={"reasoning": 1}, rows=1, languages=["de"])


def test_romanised_hindi_is_not_answered_in_devanagari(made):
    _, tables, _ = made(Teacher(Hindi=DEVANAGARI), kinds={"native": 1}, rows=6)
    assert {row.language for row in tables["rows"]} == {"de"}
    reasons = Counter(reject.reason for reject in tables["rejects"])
    assert reasons["answer in another script"] > 0


def test_answers_in_another_language_make_no_row(made):
    with pytest.raises(UserError, match=r"'answer in another language': \d+"):
        made(Teacher(German="This is an answer that is in English.", Hindi="This is an answer that is in English."),
             kinds={"native": 1})  # fmt: skip


def test_a_kind_needs_its_file():
    with pytest.raises(ValidationError, match=r"name a file at tasks and seeds, or leave the kind out"):
        GenerateConfig(prompts={"m": {
            "from": "multilingual", "rows": 1, "human": "h", "reasoning": "r",
        }})  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "answer", "reason"),
    [
        ("Wie geht es dir heute?", "Mir geht es heute sehr gut.", ""),
        ("Wie geht es dir heute?", "I am very well today, thank you.", "answer in another language"),
        ("aap kaise hain, bataiye", "main theek hoon, aap kaise hain", ""),
        ("aap kaise hain, bataiye", "मैं ठीक हूँ, आप कैसे हैं", "answer in another script"),
        ("आप कैसे हैं", "main theek hoon, aap kaise hain", "answer in another script"),
        ("Was ist 6 mal 7?", "42", ""),
    ],
)
def test_prompt_and_answer_match_in_language_and_script(prompt, answer, reason):
    assert matches(prompt, answer) == reason


def test_numbers_are_equal_in_every_writing():
    assert (
        numbers("1,234.50 and 007")
        == numbers("1.234,5 und 7")
        == numbers("1\u202f234,50 et 7")
        == {"1234.5": 1, "7": 1}
    )
    assert numbers("१२३ और ๔๕") == {"123": 1, "45": 1}
    assert numbers("3.5") == numbers("3,5") == {"3.5": 1}
    assert unlike("It is 3.5 km.", "Es sind 35 km.") == "other numbers"


def test_the_phrases_are_in_their_languages():
    assert PHRASES.keys() == set(LANGUAGES)
    for language, phrases in PHRASES.items():
        for text in (*phrases.choose, *phrases.read, *phrases.into):
            assert identify(text)[0] == language, text
        assert "{letter}" in phrases.answer and "{text}" in phrases.answer
