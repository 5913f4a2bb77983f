"""Looking into a run: rows found by their ids, their ancestry, filters, and what a checkpoint says in a chat."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from posttrain import terminal
from posttrain.artifacts import write_manifest
from posttrain.chat import Renderer
from posttrain.data.rows import Document, Pair, Prompt, Reject, Response, Row, Score
from posttrain.data.tables import write_table
from posttrain.errors import UserError
from posttrain.inspect import (
    candidate_table,
    candidates,
    conversation,
    lengths,
    lineage,
    load,
    load_at,
    mixes,
    plot_lengths,
    plot_mix,
    plot_scores,
)  # fmt: skip
from posttrain.inspect import preflight as preflight_html
from posttrain.inspect.html import segments
from posttrain.inspect.run import Run, Stage
from posttrain.inspect.trace import trace
from posttrain.stages import Job
from posttrain.train.batches import render_row
from posttrain.train.preflight import preflight
from posttrain.train.sft_spec import SftConfig

ASK = {"role": "user", "content": "Say cat."}
SEED = Document("The cat sat on the mat.", title="cats.md")
PROMPT = Prompt(
    (ASK,),
    "instructions",
    parents=("spec-7", SEED.id),
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
    "synthesize": {"prompts": [PROMPT], "documents": [SEED]},
    "sample": {"responses": ANSWERS},
    "score": {"scores": [Score(r.id, "reward", value) for r, value in zip(ANSWERS, REWARDS, strict=True)]},
    "select": {"rows": [ROW], "pairs": [PAIR]},
    "clean": {"rows": [], "rejects": [Reject(ROW.id, "too short", "cat", table="rows")]},
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
    job = Job(SftConfig(), {"init": tiny_model}, checkpoint, 17, name="sft")
    renderer = Renderer.from_pretrained(tiny_model)
    preflight(job, renderer, [ROW], lambda row: render_row(renderer, row))
    write_manifest(
        checkpoint, stage="sft", kind="checkpoint", key="sft", config={}, parents={}, source_hash="",
        summary={"steps": 6, **job.summary},
    )  # fmt: skip
    (tmp_path / "final").symlink_to("store/sft")
    return tmp_path


def printed(do: object, *arguments: object) -> list[str]:
    out = io.StringIO()
    do(*arguments, Console(file=out, width=200, soft_wrap=True))  # type: ignore[operator]
    return out.getvalue().splitlines()


def test_a_training_row_is_followed_to_its_candidate_and_prompt(root: Path) -> None:
    row, said, candidate, text, prompt, asked, seed, document = printed(trace, load(root), ROW.id[:6], False)
    assert [line.strip(" │") for line in (said, text, asked, document)] == [
        "Say cat. → “cat”", "cat", "Say cat.", "The cat sat on the mat."
    ]  # fmt: skip
    assert seed.split() == ["└", "document", SEED.id[:8], "round-1/synthesize", "cats.md", "en"]
    where = "round-1/select, round-1/mix instructions en reward 2.31 left out by round-1/clean: too short"
    assert row.split() == f"sft row {ROW.id[:8]} {where}".split()
    assert candidate.split()[:7] == f"└ candidate 2 of 3 {ANSWERS[1].id[:8]} round-1/sample".split()
    assert "reward 2.31 (rank 1 of 3; best 2.31, worst -1)" in candidate
    assert "temperature 0.8" in candidate
    assert prompt.split()[:3] == ["└", "prompt", PROMPT.id[:8]]
    assert "model teacher   operator new_prompt   from spec-7" in prompt


def test_a_pair_has_two_candidates_and_one_prompt(root: Path) -> None:
    lines = printed(trace, load(root), PAIR.id, False)
    ancestors = [line.strip(" │├└").split()[0] for line in lines[2:] if "├" in line or "└" in line]
    assert ancestors == ["candidate", "prompt", "document", "candidate", "prompt"]
    assert lines[1].strip(" │") == "Say cat. → “cat” over “dog”"
    assert lines[2].startswith(" ├ candidate 2 of 3")
    assert any(line.startswith(" └ candidate 1 of 3") for line in lines)


def test_a_trace_in_full_has_the_candidates_best_first_and_the_document(root: Path) -> None:
    lines = printed(trace, load(root), ROW.id, True)
    start = lines.index(next(line for line in lines if line.startswith("candidates of round-1/sample")))
    told = [line.split() for line in lines[start + 1 : start + 5]]
    assert told == [["#", "reward", "answer"], ["→", "2", "2.31", "cat"], ["3", "0.5", "cow"], ["1", "-1", "dog"]]
    assert lines[-2:] == ["cats.md", "The cat sat on the mat."]


def test_the_conversation_is_cut_where_the_mask_changes(root: Path) -> None:
    pieces = segments(ROW, load(root))
    assert [mask for mask, _ in pieces] == [0, 1, 2]
    assert pieces[1:] == [(1, "cat"), (2, "<|eot_id|>")]
    assert '<span style="color:#0a7d33">cat</span>' in conversation(load(root), ROW.id[:6]).text
    lines = printed(trace, load(root), ROW.id, True)
    assert any(line.endswith("cat<|eot_id|>") for line in lines), lines


def test_an_id_that_fits_nothing_or_too_much(root: Path) -> None:
    run = load(root)
    with pytest.raises(UserError, match=r"no row of .* begins with 'zz'"):
        run.find("zz")
    with pytest.raises(UserError, match="is empty"):
        run.find("")
    with pytest.raises(UserError, match=f"begins with '{ROW.id[:5]}z'; the nearest is {ROW.id}"):
        run.find(f"{ROW.id[:5]}z")
    for ask in (lambda: run.stage("slect"), lambda: run.having("rows", "slect")):
        with pytest.raises(UserError, match=r"no finished stage 'slect'; did you mean select\?"):
            ask()


def shown(root: Path, where: list[str], **options: object) -> list[str]:
    """What `show` prints; the options not named are as on the command line."""
    asked = {"stage": None, "table": None, "sort": None, "columns": None, "limit": 10} | options
    return printed(
        terminal.show, load(root), asked["stage"], asked["table"], where, asked["sort"], asked["columns"],
        asked["limit"],
    )  # fmt: skip


def test_show_filters_by_column_and_scorer_and_sorts(root: Path) -> None:
    lines = shown(root, ["reward>0"], table="responses", sort="reward")
    assert [line.strip() for line in lines if line.startswith("  ")] == ["cat", "cow"]
    assert lines[-1] == "2 of 2 responses that fit, 3 in all"
    lines = shown(root, ["capability=instructions"], stage="mix", limit=1)
    assert lines[-1] == "1 of 1 rows that fit, 1 in all"


@pytest.mark.parametrize(
    ("where", "texts"),
    [
        (["text=cat"], ["cat"]),
        (["text!=cat"], ["dog", "cow"]),
        (["text~c", "reward<1"], ["cow"]),
        (["reward<=0.5", "reward>=-1"], ["dog", "cow"]),
        (["made_by.model=base", "index<2"], ["dog", "cat"]),
        (["capability=instructions", "text ~ o"], ["dog", "cow"]),
        (["made_by.unknown!=base", "finish=stop", "reward>2"], ["cat"]),
    ],
)
def test_conditions_hold_together(root: Path, where: list[str], texts: list[str]) -> None:
    lines = shown(root, where, table="responses")
    assert [line.strip() for line in lines if line.startswith("  ")] == texts


def test_columns_make_a_table(root: Path) -> None:
    lines = shown(root, [], table="responses", columns="index,text,reward,capability,stage", sort="reward", limit=2)
    assert [line.split() for line in lines[:3]] == [
        ["index", "text", "reward", "capability", "stage"],
        ["1", "cat", "2.31", "instructions", "round-1/sample"],
        ["2", "cow", "0.5", "instructions", "round-1/sample"],
    ]


def test_every_artifact_has_something_to_show(root: Path) -> None:
    scored = shown(root, [], stage="score", sort="reward", limit=1)
    assert scored[1].strip() == "cat"
    assert scored[-1] == "1 of 3 responses that fit, 3 in all"
    assert shown(root, [], stage="score", table="scores")[0].split()[1:4] == ["instructions", "en", "response_id"]
    assert "too short" in shown(root, [], stage="clean", table="rejects")[0]
    trained = shown(root, [], stage="sft")
    assert trained[0].startswith("round-1/sft  checkpoint")
    assert trained[1].strip() == "steps 6"
    assert any("⟦cat⟧⟪<|eot_id|>⟫" in line for line in trained)
    assert trained[-1] == "13 of 13 checks hold for 1 rows, 1 of them rendered a second time by transformers"


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("rewrd>1", r"'rewrd' is no column of this table; did you mean reward\?"),
        ("volume=red", "'volume' is no column of this table; there are prompt_id, index, text"),
        ("reward>high", "reward is a number, 'high' is none"),
        ("reward", "expected name=value, or one of"),
    ],
)
def test_a_condition_that_means_nothing(root: Path, where: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        shown(root, [where], table="responses")


def test_frames_have_the_scores_and_what_the_prompt_is_about(root: Path) -> None:
    frame = load(root).frame("responses")
    assert frame.sort_values("reward", ascending=False)["text"].tolist() == ["cat", "cow", "dog"]
    assert frame["stage"].tolist() == ["round-1/sample"] * 3
    assert frame["capability"].tolist() == ["instructions"] * 3


def test_tables_of_mixes_lengths_and_candidates(root: Path) -> None:
    run = load(root)
    assert mixes(run).loc["round-1/mix", "instructions"] == 1
    with pytest.raises(UserError, match="'colour' is no column of a mix"):
        mixes(run, by="colour")
    table = lengths(run)
    rendered = run.renderer.conversation(ROW.messages)
    assert table.tokens.tolist() == [len(rendered.ids)]
    assert table.trained_tokens.tolist() == [sum(value > 0 for value in rendered.mask)]
    best = candidate_table(run, scorer="reward").loc[PROMPT.id]
    assert (best.best, best.worst, best.lead, best.answers) == pytest.approx((2.31, -1.0, 1.81, 3))
    assert best["mean"] == pytest.approx((2.31 - 1.0 + 0.5) / 3)
    with pytest.raises(UserError, match="'votes' is no scorer of this run; there are reward"):
        candidate_table(run, scorer="votes")


def test_plots_hold_what_the_tables_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run = load(root)
    bars = plot_mix(run).patches
    assert [bar.get_width() for bar in bars] == [1.0]
    assert sum(bar.get_height() for bar in plot_lengths(run).patches) == 1
    offsets = plot_scores(run, scorer="reward").collections[0].get_offsets()
    assert offsets.tolist()[0] == pytest.approx([(2.31 - 1.0 + 0.5) / 3, 2.31])


def test_candidates_stand_best_first_beside_their_scores(root: Path) -> None:
    run = load(root)
    for of in (PROMPT.id, ANSWERS[0].id, ROW.id, PAIR.id):
        text = candidates(run, of, sort="reward").text
        assert text.index("cat</pre>") < text.index("cow</pre>") < text.index("dog</pre>")
        assert "<td>2.31</td>" in text
    loose = Row((ASK, answer("mouse")), "instructions")
    write_table(root / "store" / "mix", "rows", [loose])
    with pytest.raises(UserError, match="not chosen from candidates"):
        candidates(Run(root, load_stages(root), {}), loose.id)


def load_stages(root: Path) -> tuple[Stage, ...]:
    """The stages as they are on disk, whatever their manifests say."""
    names = [*TABLES]
    return tuple(
        Stage(f"round-1/{name}", name, 1, root / "store" / name, None)  # type: ignore[arg-type]
        for name in names
    )


def test_html_of_lineage_pairs_and_preflight(root: Path) -> None:
    run = load(root)
    tree = lineage(run, PAIR.id).text
    assert tree.count("<li>candidate") == 2
    assert tree.count("<li>prompt") == 2
    assert "   " not in tree and " · margin " in tree
    both = conversation(run, PAIR.id).text
    assert both.index("chosen") < both.index(">cat<") < both.index("rejected") < both.index(">dog<")
    assert "dog</pre>" in conversation(run, ANSWERS[0].id).text
    report = preflight_html(run).text
    assert report.count("✓") == 13
    with pytest.raises(UserError, match="round-1/mix has no preflight report"):
        preflight_html(run, "mix")


def test_one_artifact_is_found_in_its_run(root: Path) -> None:
    run, stage = load_at(root / "store" / "select")
    assert (run.root, stage) == (root, "round-1/select")
    with pytest.raises(UserError, match=r"neither a run nor a finished artifact"):
        load_at(root / "store")
    with pytest.raises(UserError, match=r"did you mean select\?"):
        load_at(root / "store" / "selekt")


def test_chat_reads_lines_and_answers_each(root: Path) -> None:
    command = [sys.executable, "-m", "posttrain", "chat", str(root), "--max-new-tokens", "8"]
    result = subprocess.run(command, input="Say cat.\n\nAgain.\n", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    again = subprocess.run(command, input="Say cat.\n\nAgain.\n", capture_output=True, text=True)
    assert result.stdout == again.stdout
    assert len(result.stdout.strip()) > 0


def test_an_answer_counts_as_often_as_it_was_given(root: Path) -> None:
    calls = ({"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "<b>"})
    often = [replace(ANSWERS[0], count=3, steps=calls), *ANSWERS[1:]]
    sample = root / "store" / "sample"
    rows = {"responses": write_table(sample, "responses", often)}
    write_manifest(sample, stage="sample", kind="", key="sample", config={}, parents={}, source_hash="", rows=rows)
    run = load(root)
    assert candidate_table(run, scorer="reward").loc[PROMPT.id]["mean"] == pytest.approx((3 * -1.0 + 2.31 + 0.5) / 5)
    shown = candidates(run, PROMPT.id, sort="reward").text
    assert "<code>1 ×3</code>" in shown and "&lt;b&gt;" in shown and "<code>2</code>" in shown
    assert any("candidate 2 of 5" in line for line in printed(trace, run, ANSWERS[1].id, False))
    told = printed(trace, run, ANSWERS[0].id, True)
    assert any("candidate 1 of 5 (given 3 times)" in line for line in told)
