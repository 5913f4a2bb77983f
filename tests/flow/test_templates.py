"""Runs on models as they come: a base without chat template and padding token, and one of the stock template."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from posttrain.data.tables import read_table
from posttrain.rounds.shipped import tiny_models_folder
from tests.flow.conftest import Flow, make_flow
from tests.posttrain.train.helpers import bare_model

TRL = importlib.util.find_spec("trl")
STOCK = Path(str(TRL and TRL.origin)).parent / "chat_templates" / "llama3_1.jinja"
RECIPE = """\
name: small
models:
  base: {path: bare, template: llama-3.1, date: "20 Nov 2026", tools_in: user}
  stock: stock
prompts: {multilingual: {from: synth, rows: 4, languages: [en]}, tool_use: {from: synth, rows: 4}}
setup:
  heldout: {n: 4, lengths: [64]}
round:
  synthesize: {model: stock, share: 1.0, max_new_tokens: 48}
  sample: {model: [previous, stock], k: 1, temperature: 1.0, max_new_tokens: 8}
  sft: {init: base, batch_size: 4, learning_rate: 1.0e-4}
  tune: {stage: posttrain.train.sft, init: stock, batch_size: 4, learning_rate: 1.0e-4}
  evaluate: {after: [sft], max_new_tokens: 8}
machine: {device: cpu, threads: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    flow = make_flow(tmp_path_factory.mktemp("templates"))
    bare_model(tiny_models_folder() / "base", flow.folder / "bare")
    shutil.copytree(tiny_models_folder() / "teacher", flow.folder / "stock")
    shutil.copyfile(STOCK, flow.folder / "stock" / "chat_template.jinja")
    settings = json.loads((flow.folder / "stock" / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (flow.folder / "stock" / "tokenizer_config.json").write_text(json.dumps(settings))
    (flow.folder / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "posttrain", "run", "recipe.yaml"]
    result = subprocess.run(command, cwd=flow.folder, capture_output=True, text=True, env=flow.environment())
    assert result.returncode == 0, result.stdout + result.stderr
    return flow


def template_of(folder: Path) -> str:
    return (folder / "chat_template.jinja").read_text(encoding="utf-8")


def test_what_is_trained_from_a_bare_base_is_served_with_the_template_the_recipe_names(run: Flow) -> None:
    prepared, sft = run.root / "setup" / "prepare-base", run.root / "round-1" / "sft"
    assert template_of(prepared) == template_of(sft)
    served = AutoTokenizer.from_pretrained(sft)
    said = served.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "Today Date: 20 Nov 2026" in said
    assert served.pad_token == "<|finetune_right_pad_id|>" and served.eos_token == "<|eot_id|>"
    ends = json.loads((sft / "generation_config.json").read_text())["eos_token_id"]
    assert ends == json.loads((prepared / "generation_config.json").read_text())["eos_token_id"]
    weights = [(folder / "model.safetensors").stat() for folder in (prepared, run.folder / "bare")]
    assert weights[0].st_ino == weights[1].st_ino
    assert (run.root / "final").resolve() == (run.root / "round-1" / "tune").resolve()


def test_an_instruct_model_of_the_stock_template_teaches_and_is_trained_by_its_marked_twin(run: Flow) -> None:
    rows = read_table(run.root / "round-1" / "synthesize", "rows")
    assert len(rows) > 0 and {row.made_by["dialect"] for row in rows} == {"hf"}
    twin, stock = template_of(run.root / "round-1" / "tune"), STOCK.read_text(encoding="utf-8")
    assert "{%- generation %}" in twin and "generation" not in stock.replace("add_generation_prompt", "")
    served = AutoTokenizer.from_pretrained(run.root / "round-1" / "tune")
    for row in rows:
        own = served.apply_chat_template(list(row.messages), tools=list(row.tools) or None, tokenize=False)
        text = served.apply_chat_template(
            list(row.messages), tools=list(row.tools) or None, tokenize=False, chat_template=stock
        )
        assert own == text


def test_an_answer_carries_the_dialect_of_the_model_that_wrote_it(run: Flow) -> None:
    responses = read_table(run.root / "round-1" / "sample", "responses")
    assert {(r.made_by["model"], r.made_by.get("dialect")) for r in responses} == {("previous", None), ("stock", "hf")}
