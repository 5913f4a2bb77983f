"""1,000 prompts through a suite, against lm-eval's `hf` backend: the same model, prompts and greedy answers.

    OMP_NUM_THREADS=1 python benchmarks/eval.py --write        (lm-eval 0.4.13 beside us, or --peer PYTHON that has it)

Both get the conversations with the chat template and at most `TOKENS` new tokens, one thread and the same settings of
it, and batches as large as each does best with: ours are those of the quick start's recipe, the peer is tried with
several. Counted is the CPU time of answering and grading, after the model is loaded; the contenders run in turn, each
in a process of its own. The answers of both are graded by the same rule, and the share of equal answers is printed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import harness

MODEL = harness.ROOT / "posttrain" / "tiny" / "base"
PROMPTS, TOKENS = 1000, 32
BATCHES = (1, 32, 128, 256, 512, 1024)
"""Batch sizes that the peer is tried with; 1 is what it takes where nobody says otherwise."""
BATCH_TOKENS = 32_768
"""Of `machine:` in recipes/quickstart."""
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

    machine = Machine(device="cpu", threads=1, batch_tokens=BATCH_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(PromptsConfig(path=str(file)), {"file": file}, Path(folder), 0, 0, "mine", machine)
        make(job)
        prompts = read_table(job.folder, "prompts")
        with closing(open_engine(MODEL, machine)) as engine:
            begun = time.process_time()
            sampling = Sampling(temperature=0.0, max_new_tokens=TOKENS)
            responses = answer_prompts(job, engine, prompts, sampling, PROMPTS, "m")
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
    environment = {**os.environ, **harness.QUIET, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [python, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=harness.ROOT)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(peer: str, repeats: int) -> list[str]:
    """The table. Every other turn goes backwards."""
    ways = [("posttrain", sys.executable, ["--ours"])]
    ways += [(f"lm-eval hf, batches of {batch}", peer, ["--batch", str(batch), "--theirs"]) for batch in BATCHES]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in ways}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        write_prompts(file)
        for _, order in harness.turns(ways, repeats):
            for name, python, arguments in order:
                runs[name].append(in_a_process(python, *arguments, str(file)))
    return table(runs)


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    best = {name: min(run["seconds"] for run in own) for name, own in runs.items()}
    mine, rows = runs["posttrain"][0], []
    for name, own in runs.items():
        equal = sum(own[0]["answers"][question] == text for question, text in mine["answers"].items())
        rows.append([
            name, f"{best[name]:.1f}", f"{PROMPTS / best[name]:.0f}", f"{best[name] / best['posttrain']:.2f}",
            f"{own[0]['score']:.3f}", f"{equal:,} of {PROMPTS:,}",
        ])  # fmt: skip
    return harness.markdown(["", "CPU s", "samples/s", "ratio", "score", "equal answers"], rows)


def main() -> None:
    arguments = harness.parser(__doc__ or "", repeats=2)
    arguments.add_argument("--peer", default=sys.executable, help="a Python that has lm-eval 0.4.13")
    arguments.add_argument("--ours", type=Path, help="a file of prompts to answer here")
    arguments.add_argument("--theirs", type=Path, help="a file of prompts to answer with lm-eval")
    arguments.add_argument("--batch", type=int, default=32, help="lm-eval's batch size")
    given = arguments.parse_args()
    if given.ours:
        print(json.dumps(ours(given.ours)))
    elif given.theirs:
        print(json.dumps(theirs(given.theirs, given.batch)))
    else:
        lines = compare(given.peer, given.repeats)
        del sys.argv[1:]  # where the peer lies is nobody's business
        what = f"{PROMPTS:,} prompts, at most {TOKENS} new tokens, one thread, best of {given.repeats}"
        harness.report("A suite against lm-eval's hf backend", lines, given, what, "torch", "transformers")


if __name__ == "__main__":
    main()
