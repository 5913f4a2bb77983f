"""People's files: every format is read to the same rows, and what is said of records that cannot be."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from posttrain.data.read import read_rows, run
from posttrain.data.read_spec import SPEC, ReadConfig
from posttrain.data.records import FREE_EXPANSION, MOST_LINE_BYTES
from posttrain.data.rows import EDITED, Check, Prompt
from posttrain.data.tables import read_table
from posttrain.errors import UserError
from posttrain.rounds.plan import make_plan
from posttrain.rounds.recipe import load_recipe
from posttrain.stages import Job

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
OTHER = {"role": "assistant", "content": "Go away"}
SYSTEM = {"role": "system", "content": "Be kind"}
SCHEMA = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "2"}


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
        return path

    return write


@pytest.fixture
def stage(tmp_path):
    def stage(path, **config):
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        job = Job(ReadConfig(path=str(path), **config), {"file": str(path)}, folder, 0, round=2, name="read")
        run(job)
        return job

    return stage


def faults(path, form="auto"):
    with pytest.raises(UserError) as caught:
        read_rows(path, form, "general")
    return str(caught.value)


CONVERSATIONS = {
    "messages": {"messages": [SYSTEM, USER, ANSWER]},
    "messages as JSON text": {"messages": json.dumps([SYSTEM, USER, ANSWER])},
    "messages in parts": {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]},
    "OpenAI": {"messages": [{**SYSTEM, "role": "developer"}, {**USER, "name": "Ann"}, {**ANSWER, "refusal": None}]},
    "ShareGPT": {
        "conversations": [
            {"from": "system", "value": "Be kind"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
        ]
    },
    "ShareGPT, system beside": {
        "system": "Be kind", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
    },
    "Alpaca": {"system": "Be kind", "instruction": "Hi", "input": "", "output": "Hello"},
    "prompt and completion": {"prompt": [SYSTEM, USER], "completion": [ANSWER]},
    "prompt and completion as texts": {"system": "Be kind", "prompt": "Hi", "completion": "Hello"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_form_of_a_conversation_is_the_same_row(write, name):
    (row,) = read_rows(write({**CONVERSATIONS[name], "language": "de", "extra": 1}), "auto", "chat")
    assert row.messages == (SYSTEM, USER, ANSWER)
    assert (row.capability, row.language, row.source) == ("chat", "de", "mine.jsonl")
    assert row.made_by == {"place": "mine.jsonl:1"}


CALLS = {
    "messages": {"messages": [USER, CALLING, RESULT, ANSWER], "tools": [{"type": "function", "function": SCHEMA}]},
    "arguments and tools as texts": {
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [{"id": "7", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"role": "tool", "tool_call_id": "7", "content": "2"}, ANSWER,
        ],
        "tools": json.dumps([SCHEMA]),
    },
    "OpenAI's older form": {
        "messages": [
            USER, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
            {"role": "function", "name": "f", "content": "2"}, ANSWER,
        ],
        "functions": [SCHEMA],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "2"}, {"from": "gpt", "value": "Hello"},
        ],
        "tools": json.dumps([SCHEMA]),
    },
    "bare calls": {
        "messages": [USER, {**CALLING, "tool_calls": [CALL["function"]]}, RESULT, ANSWER], "tools": [SCHEMA],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_every_form_of_a_tool_call_is_the_same_row(write, name):
    (row,) = read_rows(write(CALLS[name]), "auto", "tool_use")
    assert row.messages == (USER, CALLING, RESULT, ANSWER)
    assert row.tools == ({"type": "function", "function": SCHEMA},)


def test_a_built_in_tool_is_kept_as_its_type(write):
    tools = [{"type": "brave_search"}, SCHEMA]
    (row,) = read_rows(write({"messages": [USER, ANSWER], "tools": tools}), "auto", "tool_use")
    assert row.tools == ({"type": "brave_search"}, {"type": "function", "function": SCHEMA})


def test_alpaca_joins_instruction_and_input_and_keeps_history(write):
    record = {"instruction": "Translate", "input": "Haus", "output": "house", "history": [["Hi", "Hello"]]}
    (row,) = read_rows(write(record), "alpaca", "general")
    assert row.messages == (
        USER, ANSWER, {"role": "user", "content": "Translate\n\nHaus"}, {"role": "assistant", "content": "house"},
    )  # fmt: skip


def test_weights_and_train_flags_survive(write, stage):
    weighted = {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**OTHER, "weight": 1}]}
    flagged = {"messages": [USER, {**ANSWER, "train": False}, USER, {**OTHER, "train": True}]}
    expected = (USER, {**ANSWER, "train": False}, USER, {**OTHER, "train": True})
    job = stage(write(weighted, flagged))
    (row,) = read_table(job.folder, "rows")
    assert row.messages == expected
    assert job.summary["drops"] == {"duplicate": 1, "unreadable": 0}
    (plain,) = read_rows(write({"messages": [USER, ANSWER, USER, OTHER]}), "auto", "general")
    assert plain.id != row.id


def test_what_a_tool_returns_may_be_any_json(write):
    result = {"role": "tool", "content": {"temperature": [1, None, {"é": 2.5}]}}
    (row,) = read_rows(write({"messages": [USER, CALLING, result, ANSWER]}), "auto", "general")
    assert row.messages[2] == result


def test_prompts_may_be_text_or_messages_and_carry_a_check(write):
    check = {"name": "exact", "args": {"answers": ["Hello"]}}
    path = write({"prompt": "Hi", "check": check}, {"messages": [USER]}, {"instruction": "Hi"})
    first, second, third = read_rows(path, "prompts", "general")
    assert first.messages == second.messages == third.messages == (USER,)
    assert first.check == Check("exact", {"answers": ["Hello"]})
    assert second.check is None


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        {"messages": [USER], "chosen": ANSWER, "rejected": OTHER},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"prompt": "Hi", "messages": [USER, ANSWER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away"},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"}, "rejected": {"from": "gpt", "value": "Go away"},
        },
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go away"},
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [OTHER]},
        {"prompt": "Hi", "responses": ["Hello", "Go away"]},
        {"prompt": "Hi", "responses": ["Go away", ANSWER], "ranks": [2, 1]},
    ],
)  # fmt: skip
def test_every_form_of_a_preference_is_the_same_pair(write, record):
    (pair,) = read_rows(write(record), "preferences", "general")
    assert (pair.prompt, pair.chosen, pair.rejected, pair.rating) == ((USER,), ANSWER, OTHER, None)
    assert pair.prompt_id == Prompt((USER,), "general").id


def test_a_system_message_of_the_answers_belongs_to_the_prompt(write):
    record = {"prompt": "Hi", "chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM, USER, OTHER]}
    (pair,) = read_rows(write(record), "preferences", "general")
    assert (pair.prompt, pair.chosen) == ((SYSTEM, USER), ANSWER)


def test_ratings_scores_and_edits(write):
    record = {"prompt": "Hi", "chosen": "B", "rejected": "C", "edited": "A", "rating": "Slightly better"}
    found = [
        (pair.chosen["content"], pair.rejected["content"], pair.rating)
        for pair in read_rows(write(record), "preferences", "general")
    ]
    assert found == [("B", "C", "slightly_better"), ("A", "B", EDITED), ("A", "C", EDITED)]
    for given, level in (("significantly-better", "significantly_better"), ("negligibly better", "marginally_better")):
        (pair,) = read_rows(write({**record, "edited": None, "rating": given}), "preferences", "general")
        assert pair.rating == level
    scored = {"prompt": "Hi", "chosen": "B", "rejected": "C", "score_chosen": 8.5, "score_rejected": 6}
    assert [pair.margin for pair in read_rows(write(scored), "preferences", "general")] == [2.5]


def test_a_ranked_list_is_all_its_pairs_without_ties(write):
    record = {"prompt": "Hi", "responses": ["D", "A", "B", "C"], "scores": [0, 3, 2, 2]}
    pairs = read_rows(write(record), "preferences", "general")
    assert [(pair.chosen["content"], pair.rejected["content"], pair.margin) for pair in pairs] == [
        ("A", "B", 1), ("A", "C", 1), ("A", "D", 3), ("B", "D", 2), ("C", "D", 2),
    ]  # fmt: skip
    assert len({pair.prompt_id for pair in pairs}) == 1


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    [
        ("messages", "{not json", "is not JSON (Expecting property name enclosed in double quotes at column 2)"),
        ("messages", "[1]", "is a list, not an object"),
        ("messages", {"text": "x"}, "messages is missing, not a list of messages"),
        ("messages", {"messages": [USER]}, "ends with a user message"),
        ("messages", {"messages": [{"role": "robot", "content": "x"}, ANSWER]}, "messages[0].role is 'robot'"),
        ("messages", {"messages": [{"role": "user", "content": 3}, ANSWER]}, "messages[0].content is 3"),
        ("messages", {"messages": [{**USER, "content": [{"type": "image_url"}]}, ANSWER]}, "a part of type image_url"),
        ("messages", {"messages": [{**USER, "tool_calls": [1]}, ANSWER]}, "tool_calls cannot stand there"),
        ("messages", {"messages": [USER, {**ANSWER, "tool_calls": [{}]}]}, "a function has no name"),
        ("messages", {"messages": [USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "{"}]}]}, "is not JSON"),
        ("messages", {"messages": [USER, {**ANSWER, "weight": 0.5}]}, "has the weight 0.5; it is 0 or 1"),
        ("messages", {"messages": [{**USER, "train": True}, ANSWER]}, "only the assistant's are trained"),
        ("messages", {"messages": [USER, {**ANSWER, "weight": 0}]}, "not to be trained"),
        ("messages", {"messages": [USER, ANSWER], "tools": {"a": 1}}, "tools is no list of objects"),
        ("messages", {"messages": [USER, ANSWER], "capability": 4}, "capability is 4, not a text"),
        ("messages", {"messages": [USER, ANSWER], "reward": "high"}, "reward is 'high', not a number"),
        ("messages", '{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
        ("messages", '{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "the key 'content' twice"),
        ("messages", '{"messages": NaN}', "holds NaN, which is not JSON"),
        ("messages", '{"messages": 1' + "0" * 400 + "}", "holds the number 10000000000000000000…, which is too large"),
        ("messages", {"messages": [{**USER, "content": [{"type": "text"}]}, ANSWER]}, "has a text part without a text"),
        ("messages", {"messages": [USER, {**ANSWER, "tool_calls": [{"name": ""}]}]}, "a function has no name"),
        (
            "preferences", {"prompt": "p", "responses": ["a", "b", "a"], "scores": [3, 2, 1]},
            "one response is ranked both above and below another one",
        ),
        ("messages", '{"messages": -Infinity}', "holds -Infinity"),
        ("messages", '{"messages": 1e999}', "holds the number 1e999, which is too large"),
        ("messages", "[" * 100_000, "is nested too deeply"),
        ("messages", '{"a":' * 150 + "1" + "}" * 150, "more than 100 levels"),
        ("auto", {"text": "x"}, "has the keys text, and none of messages, conversations, instruction and"),
        ("auto", {"chosen": "x", "rejected": "y"}, "; format: preferences reads it"),
        ("auto", {"messages": [USER, ANSWER], "conversations": []}, "so it may be messages or sharegpt"),
        ("auto", {"prompt": "Hi", "completion": "x", "label": False}, "label: false"),
        ("alpaca", {"instruction": "x", "output": 3}, "output is 3, not a text"),
        ("sharegpt", {"conversations": [{"from": "function_call", "value": "f(1)"}]}, "is not JSON"),
        ("prompts", {"messages": [USER, ANSWER]}, "ends with an assistant message"),
        ("prompts", {"question": "x"}, "has none of prompt, messages, conversations, instruction"),
        ("prompts", {"prompt": "x", "check": "exact"}, "check 'exact' has no name"),
        ("heldout", {"prompt": "x"}, "has no check"),
        ("preferences", {"prompt": "Hi", "chosen": "Hello"}, "rejected is missing"),
        ("preferences", {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}, "are the same"),
        ("preferences", {"prompt": "Hi", "chosen": [USER, ANSWER, ANSWER], "rejected": "x"}, "chosen goes on after an"),
        ("preferences", {"chosen": [USER, ANSWER], "rejected": [ANSWER, OTHER]}, "answer different conversations"),
        ("preferences", {"chosen": "a", "rejected": "b"}, "chosen is an answer alone"),
        ("preferences", {"prompt": "Hi", "chosen": "a", "rejected": "b", "rating": "good"}, "rating is 'good'; known"),
        ("preferences", {"prompt": "Hi", "responses": ["a"]}, "not a list of two or more"),
        ("preferences", {"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 1]}, "no response is ranked above"),
        ("preferences", {"prompt": "Hi", "responses": ["a", "b"], "ranks": [1]}, "not one number a response"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named_with_its_line_and_reason(write, form, line, reason):
    path = write("", line)
    message = faults(path, form)
    assert message.startswith(f"{path}: 1 record is not as format {form} needs; mend them\n  mine.jsonl:2: ")
    assert reason in message


def test_two_possible_formats_are_decided_by_name(write):
    path = write({"messages": [USER, ANSWER], "prompt": "Hi", "completion": "Go away"})
    assert "so it may be messages or prompt_completion; say with format: which is meant" in faults(path)
    assert [row.messages[-1] for row in read_rows(path, "messages", "general")] == [ANSWER]
    assert [row.messages[-1] for row in read_rows(path, "prompt_completion", "general")] == [OTHER]


def test_all_bad_records_are_counted_and_ten_shown(write):
    message = faults(write(*["{"] * 12))
    assert "12 records are not" in message
    assert message.count("\n  mine.jsonl:") == 10
    assert message.endswith("\n  and 2 more")


def test_skipping_counts_bad_records_and_keeps_them(write, stage):
    job = stage(
        write({"messages": [USER, ANSWER]}, "{", {"messages": [USER]}, {"messages": [USER, OTHER]}), on_error="skip"
    )
    assert [row.messages[1] for row in read_table(job.folder, "rows")] == [ANSWER, OTHER]
    assert job.summary["drops"] == {"duplicate": 0, "unreadable": 2}
    assert job.rows == {"rows": 2, "rejects": 2}
    first, second = read_table(job.folder, "rejects")
    assert (first.place, first.text) == ("mine.jsonl:2", "{\n")
    assert first.reason.startswith("is not JSON")
    assert (second.place, second.reason) == ("mine.jsonl:3", "ends with a user message, not the assistant's")
    with pytest.raises(UserError, match=r"holds nothing that format auto reads\n  bad.jsonl:1: is not JSON"):
        stage(write("{", name="bad.jsonl"), on_error="skip")


def test_bytes_that_text_files_come_with(tmp_path):
    line = json.dumps({"messages": [USER, {**ANSWER, "content": "é\u2028ü"}]}, ensure_ascii=False).encode()
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \r\n" + line)
    assert [row.made_by["place"] for row in read_rows(path, "auto", "general")] == ["mine.jsonl:1", "mine.jsonl:4"]
    path.write_bytes(line + b"\n" + b'{"messages": "caf\xe9"}\n')
    assert "mine.jsonl:2: is not UTF-8 (invalid continuation byte at byte 18)" in faults(path)
    path.write_bytes(line.decode().encode("utf-16"))
    assert "is UTF-16 text; save it as UTF-8" in faults(path)


def test_a_line_of_a_hundred_megabytes_is_a_sentence(tmp_path):
    path = tmp_path / "mine.jsonl"
    line = json.dumps({"messages": [USER, ANSWER]}).encode()
    with open(path, "wb") as handle:
        handle.write(b'{"messages": "')
        for _ in range(100):
            handle.write(b"x" * (1 << 20))
        handle.write(b'"}\n' + line + b"\n")
    assert f"mine.jsonl:1: is longer than {MOST_LINE_BYTES >> 20} MiB" in faults(path)
    path.write_bytes(line + b"\n" + b"x" * (MOST_LINE_BYTES + 5))
    assert "mine.jsonl:2: is longer than" in faults(path)


def test_files_that_cannot_be_read(tmp_path, write):
    assert "holds nothing that format auto reads" in faults(write(""))
    assert "cannot be read (No such file" in faults(tmp_path / "missing.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    assert "cannot be read as Parquet" in faults(tmp_path / "bad.parquet")
    (tmp_path / "empty").mkdir()
    assert "holds no data: no .jsonl, " in faults(tmp_path / "empty")


def test_gzip_is_unpacked_and_a_bomb_is_not(tmp_path):
    path, lines = tmp_path / "mine.jsonl.gz", json.dumps({"messages": [USER, ANSWER]})
    path.write_bytes(gzip.compress(lines.encode()))
    assert [row.messages for row in read_rows(path, "auto", "general")] == [(USER, ANSWER)]
    long = json.dumps({"messages": [USER, {**ANSWER, "content": "x" * (1 << 20)}]}) + "\n"
    path.write_bytes(gzip.compress(long.encode() * (2 * FREE_EXPANSION >> 20)))
    assert "unpacks to more than 100 times its" in faults(path)
    path.write_bytes(gzip.compress(b"x" * (3 * FREE_EXPANSION)))
    assert "unpacks to more than 100 times its" in faults(path)
    path.write_bytes(gzip.compress(lines.encode())[:-9])
    assert "cannot be unpacked" in faults(path)


def test_a_json_list_is_read_member_by_member_with_lines(tmp_path):
    path = tmp_path / "alpaca.json"
    members = [{"instruction": "Hi", "output": text} for text in ("Hello", "Go away")]
    path.write_text(json.dumps(members, indent=2), encoding="utf-8")
    assert [(row.messages[1], row.made_by["place"]) for row in read_rows(path, "auto", "general")] == [
        (ANSWER, "alpaca.json:2"), (OTHER, "alpaca.json:6"),
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, members)), encoding="utf-8")
    assert len(read_rows(path, "auto", "general")) == 2
    for text, reason in (
        ('[{"a": 1},\n {"b"', "alpaca.json:2"),
        ('[{"a": 1} {}]', "a comma or the list's end is missing"),
    ):
        path.write_text(text, encoding="utf-8")
        assert reason in faults(path)


def test_parquet_gives_back_what_arrow_did_not_invent(tmp_path):
    """Arrow merges the structs of a column, so each row's arguments have all keys of the others, as nulls."""
    calls = [
        {"function": {"name": name, "arguments": args}} for name, args in (("f", {"x": 1}), ("g", {"y": {"z": "é"}}))
    ]
    records = [{"messages": [USER, {"role": "assistant", "tool_calls": [call]}]} for call in calls]
    table = pa.Table.from_pylist(records)
    assert table["messages"].to_pylist()[0][1]["tool_calls"][0]["function"]["arguments"] == {"x": 1, "y": None}
    pq.write_table(table, tmp_path / "mine.parquet")
    rows = read_rows(tmp_path / "mine.parquet", "auto", "general")
    assert [row.messages[1]["tool_calls"][0]["function"] for row in rows] == [call["function"] for call in calls]
    assert [row.made_by["place"] for row in rows] == ["mine.parquet:1", "mine.parquet:2"]
    assert rows[0].messages[0] == USER


def test_what_parquet_holds_and_json_does_not_is_a_reason(tmp_path):
    path, day = tmp_path / "mine.parquet", datetime.date(2024, 7, 26)
    record = {"messages": [USER, ANSWER], "seen": day}
    for more, reason in (
        ({"reward": float("nan")}, "mine.parquet:1: reward is nan, not a number"),
        ({"tools": [{"name": "f", "since": day}]}, "mine.parquet:1: cannot be kept: Object of type date is not JSON"),
    ):
        pq.write_table(pa.Table.from_pylist([record | more]), path)
        assert reason in faults(path)
    pq.write_table(pa.Table.from_pylist([record]), path)
    assert len(read_rows(path, "auto", "general")) == 1


def test_folders_of_files_and_of_data_sets(tmp_path, write, stage):
    from datasets import Dataset, DatasetDict

    (tmp_path / "many").mkdir()
    write({"messages": [USER, ANSWER]}, name="many/b.jsonl")
    pq.write_table(pa.Table.from_pylist([{"messages": [USER, OTHER]}]), tmp_path / "many" / "a.parquet")
    assert [row.messages[1] for row in read_rows(tmp_path / "many", "auto", "general")] == [OTHER, ANSWER]
    saved = Dataset.from_list([{"messages": [USER, ANSWER]}, {"messages": [USER, OTHER]}])
    DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(str(tmp_path / "saved"))
    job = stage(tmp_path / "saved", split="test")
    (row,) = read_table(job.folder, "rows")
    assert (row.messages, row.source) == ((USER, OTHER), "saved")
    assert row.made_by == {"stage": "read", "round": 2, "place": "saved:1"}
    with pytest.raises(UserError, match="has no split 'dev'; it has train, test"):
        stage(tmp_path / "saved", split="dev")


def test_a_data_set_that_the_hub_does_not_give_is_a_sentence(monkeypatch):
    from datasets import config

    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"data set nobody/nothing-at-all, split train: cannot be loaded \("):
        read_rows("nobody/nothing-at-all", "auto", "general")


def test_the_stage_drops_duplicates_and_stops_at_the_limit(write, stage):
    job = stage(write(*({"prompt": text} for text in ("a", "b", "a", "c")), "{"), format="prompts", rows=2)
    assert [prompt.messages[0]["content"] for prompt in read_table(job.folder, "prompts")] == ["a", "b"]
    assert job.rows == {"prompts": 2}
    job = stage(write(*({"prompt": text} for text in ("a", "b", "a", "c"))), format="prompts", rows=3)
    assert job.rows == {"prompts": 3}
    assert job.summary["drops"] == {"duplicate": 1, "unreadable": 0}


RECIPE = """
name: mine
models: {base: tiny/base}
round:
  read: {path: PATH, format: preferences}
  reward: {init: base, heldout_share: 0}
  dpo: {init: base, reference: base}
"""


def test_preferences_train_a_reward_model_as_well_as_dpo(tmp_path, write, stage):
    path = write({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"})
    job = stage(path, format="preferences")
    assert job.rows == {"preferences": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("PATH", "mine.jsonl"), encoding="utf-8")
    plan = make_plan(load_recipe(recipe), recipe)
    inputs = {node.name: [of.id for of in node.parents] for node in plan.nodes}
    assert inputs == {"read": [], "reward": ["round-1/read"], "dpo": ["round-1/read"]}


def test_a_hub_name_a_folder_and_a_missing_file_in_the_plan(tmp_path, write):
    (tmp_path / "many").mkdir()
    write({"messages": [USER, ANSWER]}, name="many/b.jsonl")
    recipe = tmp_path / "recipe.yaml"

    def planned(path):
        recipe.write_text(RECIPE.replace("PATH", path), encoding="utf-8")
        return make_plan(load_recipe(recipe), recipe).nodes[0]

    hub = planned("someone/pairs")
    assert (hub.inputs["file"].source, hub.inputs["file"].fingerprint) == (
        "someone/pairs",
        "hub-data:someone/pairs@main",
    )
    assert "hub revision not pinned" in hub.size.note
    assert planned("someone/pairs, revision: abc").key != hub.key
    assert planned("many").inputs["file"].source == str(tmp_path / "many")
    with pytest.raises(UserError, match=r"data/mine.jsonl not found \(looked in"):
        planned("data/mine.jsonl")


def test_what_the_stage_provides_is_named_by_the_format():
    forms = ("auto", "alpaca", "prompts", "preferences")
    assert [SPEC.provides(ReadConfig(path="x", format=form)) for form in forms] == [
        ("rows",), ("rows",), ("prompts",), ("preferences", "pairs"),
    ]  # fmt: skip
    with pytest.raises(ValidationError, match="format"):
        ReadConfig(path="x", format="csv")
