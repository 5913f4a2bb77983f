"""Looking into a run: rows found by their ids, their ancestry, filters, and what a checkpoint says in a chat."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from posttrain import terminal
from posttrain.artifacts import write_manifest
from posttrain.chat import Renderer
from posttrain.data.rows import Pair, Prompt, Response, Row, Score
from posttrain.data.tables import write_table
from posttrain.errors import UserError
from posttrain.inspect import conversation_html, load, load_at, segments

ASK = {"role": "user", "content": "Say cat."}
PROMPT = Prompt(
    (ASK,),
    "instructions",
    parents=("spec-7",),
    made_by={"model": "teacher", "stage": "synthesize", "operator": "new_prompt"},
)
ANSWERS = [
    Response(PROMPT.id, index, text, "stop", 3, -1.0, {"model": "base", "temperature": 0.8})
    for index, text in enumerate(["dog", "cat", "cow"])
]
REWARDS = [-1.0, 2.31, 0.5]


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROW = Row((ASK, answer("cat")), "instructions", reward=2.31, parents=(PROMPT.id, ANSWERS[1].id))
PAIR = Pair(
    (ASK,),
    answer("cat"),
    answer("dog"),
    "instructions",
    margin=3.31,
    prompt_id=PROMPT.id,
    parents=(PROMPT.id, ANSWERS[1].id, ANSWERS[0].id),
)
TABLES = {
    "synthesize": {"prompts": [PROMPT]},
    "sample": {"responses": ANSWERS},
    "score": {"scores": [Score(r.id, "reward", value) for r, value in zip(ANSWERS, REWARDS, strict=True)]},
    "select": {"rows": [ROW], "pairs": [PAIR]},
    "mix": {"rows": [ROW]},
}


@pytest.fixture
def root(tmp_path: Path, tiny_model: Path) -> Path:
    """A run of one round as the stages leave it, with a checkpoint."""
    stages = [{"id": f"round-1/{name}", "name": name, "round": 1, "folder": name} for name in [*TABLES, "sft"]]
    (tmp_path / "plan.json").write_text(json.dumps({"name": "made", "final": "round-1/sft", "stages": stages}))
    for name, tables in TABLES.items():
        folder = tmp_path / "store" / name
        folder.mkdir(parents=True)
        rows = {table: write_table(folder, table, made) for table, made in tables.items()}
        write_manifest(folder, stage=name, kind="", key=name, config={}, parents={}, source_hash="", rows=rows)
    checkpoint = tmp_path / "store" / "sft"
    shutil.copytree(tiny_model, checkpoint)
    write_manifest(checkpoint, stage="sft", kind="checkpoint", key="sft", config={}, parents={}, source_hash="")
    (tmp_path / "final").symlink_to("store/sft")
    return tmp_path


def printed(do: object, *arguments: object) -> list[str]:
    out = io.StringIO()
    do(*arguments, Console(file=out, width=200, soft_wrap=True))  # type: ignore[operator]
    return out.getvalue().splitlines()


def test_a_training_row_is_followed_to_its_candidate_and_prompt(root: Path) -> None:
    row, candidate, prompt = printed(terminal.trace, load(root), ROW.id[:6], False)
    assert row.split() == f"sft row {ROW.id[:8]} round-1/select instructions en reward 2.31".split()
    assert candidate.split()[:7] == f"└ candidate 2 of 3 {ANSWERS[1].id[:8]} round-1/sample".split()
    assert "reward 2.31 (rank 1 of 3)" in candidate
    assert "temperature 0.8" in candidate
    assert prompt.split()[:3] == ["└", "prompt", PROMPT.id[:8]]
    assert "model teacher   operator new_prompt   from spec-7" in prompt


def test_a_pair_has_two_candidates_and_one_prompt(root: Path) -> None:
    lines = printed(terminal.trace, load(root), PAIR.id, False)
    assert [line.strip(" │├└").split()[0] for line in lines[1:]] == ["candidate", "prompt", "candidate", "prompt"]
    assert lines[1].startswith(" ├ candidate 2 of 3")
    assert lines[3].startswith(" └ candidate 1 of 3")


def test_the_conversation_is_cut_where_the_mask_changes(root: Path, tiny_model: Path) -> None:
    pieces = segments(ROW, Renderer.from_pretrained(tiny_model))
    assert [mask for mask, _ in pieces] == [0, 1, 2]
    assert pieces[1:] == [(1, "cat"), (2, "<|eot_id|>")]
    assert '<span style="color:#0a7d33">cat</span>' in conversation_html(ROW, Renderer.from_pretrained(tiny_model))
    lines = printed(terminal.trace, load(root), ROW.id, True)
    assert any(line.endswith("cat<|eot_id|>") for line in lines), lines


def test_an_id_that_fits_nothing_or_too_much(root: Path) -> None:
    run = load(root)
    with pytest.raises(UserError, match=r"no row of .* begins with 'zz'"):
        run.find("zz")
    with pytest.raises(UserError, match="is empty"):
        run.find("")


def test_show_filters_by_column_and_scorer_and_sorts(root: Path) -> None:
    run = load(root)
    lines = printed(terminal.show, run, None, "responses", ["reward>0"], "reward", 10)
    assert [line.strip() for line in lines if line.startswith("  ")] == ["cat", "cow"]
    assert lines[-1] == "2 of 2 responses that fit, 3 in all"
    lines = printed(terminal.show, run, "mix", None, ["capability=instructions"], None, 1)
    assert lines[-1] == "1 of 1 rows that fit, 1 in all"
    with pytest.raises(UserError, match="'colour' is no column of this table; there are prompt_id, index, text"):
        terminal.show(run, None, "responses", ["colour=red"], None, 1, Console(file=io.StringIO()))
    with pytest.raises(UserError, match="reward is a number, 'high' is none"):
        terminal.show(run, None, "responses", ["reward>high"], None, 1, Console(file=io.StringIO()))


def test_frames_have_the_scores(root: Path) -> None:
    frame = load(root).frame("responses")
    assert frame.sort_values("reward", ascending=False)["text"].tolist() == ["cat", "cow", "dog"]
    assert frame["stage"].tolist() == ["round-1/sample"] * 3


def test_one_artifact_is_found_in_its_run(root: Path) -> None:
    run, stage = load_at(root / "store" / "select")
    assert (run.root, stage) == (root, "round-1/select")
    with pytest.raises(UserError, match=r"neither a run nor a finished artifact"):
        load_at(root / "store")


def test_chat_reads_lines_and_answers_each(root: Path) -> None:
    command = [sys.executable, "-m", "posttrain", "chat", str(root), "--max-new-tokens", "8"]
    result = subprocess.run(command, input="Say cat.\n\nAgain.\n", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    again = subprocess.run(command, input="Say cat.\n\nAgain.\n", capture_output=True, text=True)
    assert result.stdout == again.stdout
    assert len(result.stdout.strip()) > 0
