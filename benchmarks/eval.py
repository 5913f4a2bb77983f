"""1,000 prompts through a suite, against lm-eval's `hf` backend: the same model, prompts and greedy answers.

    OMP_NUM_THREADS=1 python benchmarks/eval.py --peer /path/to/python-with-lm-eval --write

Both get the conversations with the chat template and at most `TOKENS` new tokens, one thread, and batches as large as
the peer does best with (it is tried with several). Counted is the CPU time of answering and grading, after the model is
loaded; the contenders run in turn, each in a process of its own. The answers of both are graded by the same scorer, and
the share of equal answers is printed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "eval.md"
MODEL = ROOT / "posttrain" / "tiny" / "base"
PROMPTS, TOKENS = 1000, 32
BATCHES = (1, 32, 128)
"""Batch sizes that the peer is tried with; 1 is what it takes where nobody says otherwise."""
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def write_prompts(file: Path) -> None:
    """The world's held-out questions in eight languages, with their one right answer."""
    from synth.world import heldout

    with file.open("w", encoding="utf-8") as out:
        for prompt in heldout("multilingual", PROMPTS, 11, (1, 2)):
            record = {"question": prompt.messages[0]["content"], "answer": prompt.check.args["answers"][0]}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def ours(file: Path) -> dict[str, Any]:
    """The suite made from the file and answered as the stage `eval.run` does."""
    from eval.scoring import graded_answers
    from eval.suites.prompts import run as make
    from eval.suites.prompts_spec import PromptsConfig
    from posttrain.data.tables import read_table
    from posttrain.engines.answers import answer_prompts
    from posttrain.engines.protocol import Sampling, open_engine
    from posttrain.machine import Machine
    from posttrain.stages import Job

    machine = Machine(device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(PromptsConfig(path=str(file)), {"file": file}, Path(folder), 0, 0, "mine", machine)
        make(job)
        prompts = read_table(job.folder, "prompts")
        with closing(open_engine(MODEL, machine)) as engine:
            begun = time.process_time()
            responses = answer_prompts(job, engine, prompts, Sampling(temperature=0.0, max_new_tokens=TOKENS), 256, "m")
            graded = graded_answers(prompts, responses, engine.renderer)
            seconds = time.process_time() - begun
    answers = {one.prompt.messages[0]["content"]: one.response.text for one in graded}
    return {"seconds": seconds, "answers": answers, "score": sum(one.value or 0 for one in graded) / len(graded)}


def theirs(file: Path, batch: int) -> dict[str, Any]:
    """lm-eval's Python API, which is cheaper than its command."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.yaml").write_text(TASK.format(file=file, tokens=TOKENS), encoding="utf-8")
        model = HFLM(pretrained=str(MODEL), dtype="float32", device="cpu", batch_size=batch)
        manager = TaskManager(include_path=folder, include_defaults=False)
        begun = time.process_time()
        found = lm_eval.simple_evaluate(
            model, tasks=["mine"], task_manager=manager, apply_chat_template=True, log_samples=True, bootstrap_iters=0
        )
        seconds = time.process_time() - begun
    answers = {one["doc"]["question"]: one["resps"][0][0] for one in found["samples"]["mine"]}
    return {"seconds": seconds, "answers": answers, "score": found["results"]["mine"]["exact_match,none"]}


def in_a_process(python: str, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                   "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    done = subprocess.run(
        [python, "-P", __file__, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def compare(peer: str, repeats: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        write_prompts(file)
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(repeats):
            runs.setdefault("posttrain", []).append(in_a_process(sys.executable, "--ours", str(file)))
            for batch in BATCHES:
                name = f"lm-eval hf, batches of {batch}"
                runs.setdefault(name, []).append(in_a_process(peer, "--theirs", str(file), "--batch", str(batch)))
    return table(runs)


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    best = {name: min(run["seconds"] for run in own) for name, own in runs.items()}
    mine = runs["posttrain"][0]
    lines = ["| | CPU s | samples/s | ratio | score | equal answers |", "|---|---|---|---|---|---|"]
    for name, own in runs.items():
        equal = sum(own[0]["answers"][question] == text for question, text in mine["answers"].items())
        lines.append(
            f"| {name} | {best[name]:.1f} | {PROMPTS / best[name]:.0f} | {best[name] / best['posttrain']:.2f} | "
            f"{own[0]['score']:.3f} | {equal:,} of {PROMPTS:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="a Python that has lm-eval 0.4.13")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=32, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(ours(Path(given.ours))))
    elif given.theirs:
        print(json.dumps(theirs(Path(given.theirs), given.batch)))
    else:
        shown = compare(given.peer, given.repeats)
        print(shown)
        if given.write:
            what = f"{PROMPTS:,} prompts, at most {TOKENS} new tokens"
            about = f"`python benchmarks/eval.py`: {what}, {platform.machine()}, "
            head = "# A suite against lm-eval's hf backend\n\n"
            RESULTS.write_text(f"{head}{about}one thread, best of {given.repeats}.\n\n{shown}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
