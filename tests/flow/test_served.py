"""A run whose answers come from a server: killed in the middle, it goes on elsewhere with the prompts it lacks."""

import json
import signal

from posttrain.data.tables import read_table
from tests.flow.conftest import Flow, wait_for
from tests.posttrain.engines.stub import MODEL, Stub

RECIPE = """\
name: small
models:
  base: tiny/base
  teacher: {endpoint: "%s", model: stub, api_key_env: STUB_KEY, concurrency: 2, can: {n: true}, price: {output: 1}}
round:
  read: {path: prompts.jsonl, format: prompts}
  sample: {model: teacher, k: 2, temperature: 1.0, max_new_tokens: 8}
"""
KEY = "sk-stub-key-in-the-environment"


def test_a_killed_run_asks_another_server_for_the_prompts_it_lacks(flow: Flow, monkeypatch) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    questions = [{"messages": [{"role": "user", "content": f"question {i}"}]} for i in range(12)]
    (flow.folder / "prompts.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    slow, quick = Stub(key=KEY, delay=0.3), Stub(key=KEY)
    (flow.folder / "recipe.yaml").write_text(RECIPE % slow.url)
    process = flow.start("run", "recipe.yaml")
    wait_for(lambda: len(slow.asked) >= 6)
    worker = flow.worker_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(line.startswith("State:\tS") for line in status_of(worker)))
    journal = next(flow.root.glob("store/*.part/responses.journal.jsonl"))
    kept = len(journal.read_text().splitlines())
    assert 2 <= kept < 12

    (flow.folder / "recipe.yaml").write_text(RECIPE % quick.url)
    result = flow.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(quick.asked) == 12 - kept
    folder = flow.root / "round-1" / "sample"
    responses = read_table(folder, "responses")
    assert len(responses) == 24
    assert {response.made_by["model"] for response in responses} == {"teacher"}
    usage = json.loads((folder / "manifest.json").read_text())["summary"]["usage"]["teacher"]
    assert (usage["prompt_tokens"], usage["tokens"]) == (12 * 10, 24 * 3)
    files = [path for path in flow.root.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in result.stdout + result.stderr
    assert MODEL in (folder / "manifest.json").read_text()


def status_of(process: int) -> list[str]:
    try:
        with open(f"/proc/{process}/status", encoding="utf-8") as handle:
            return handle.read().splitlines()
    except FileNotFoundError:
        return []
