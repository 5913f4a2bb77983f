"""A run of one round as its stages leave it, written with the real tables, manifests and sums.

Every number is known: of 40 prompts (`calls` even, `words` odd) the base answers every fourth well, SFT all but every
fifth of those and of the rest those not divisible by three.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table import Graded, changes, results
from posttrain.artifacts import write_manifest
from posttrain.data.rows import Check, Pair, Prompt, Reject, Response, Row, Sample, Score
from posttrain.data.tables import write_table

HOSTILE = (
    "</pre></article><script>document.title = 'owned'</script><img src=http://example.com/x onerror=alert(1)>\x00\x1b"
)
ANSWER = "<b onclick=alert(1)>{{ 7 * 7 }}</b>"
COUNT = 40


def asked(number: int) -> Prompt:
    text = HOSTILE if number == 0 else f"Question {number}?"
    return Prompt(
        ({"role": "user", "content": text},), ("calls", "words")[number % 2], ("en", "de")[number % 4 == 3],
        check=Check("exact", {"answers": ["yes"]}), made_by={"number": number},
    )  # fmt: skip


PROMPTS = [asked(number) for number in range(COUNT)]


def base_right(number: int) -> bool:
    return number % 4 == 0


def sft_right(number: int) -> bool:
    return number % 5 != 0 if number % 4 == 0 else number % 3 != 0


@dataclass
class Written:
    """A run that grows stage by stage."""

    root: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def folder(self, id: str) -> Path:
        return self.root / "store" / id.replace("/", "-")

    def stage(
        self, id: str, provides: list[str], tables: dict[str, list[Any]] | None = None,
        inputs: dict[str, Any] | None = None, summary: dict[str, Any] | None = None,
        files: dict[str, str] | None = None, tokens: int = 0, config: dict[str, Any] | None = None, done: bool = True,
    ) -> None:  # fmt: skip
        """Write a finished stage, or with `done` False only its place in the plan."""
        place, _, name = id.partition("/")
        number = int(place.removeprefix("round-")) if place != "setup" else 0
        title = f"round {number} {name.removeprefix('evaluate-')}" if number else name.removeprefix("evaluate-")
        expected = {
            "rows": 0,
            "tokens": 2 * tokens,
            "parameters": 0,
            "memory": 0,
            "seconds": 4.0,
            "note": "",
            "made": {},
        }
        self.entries.append({
            "id": id, "round": number, "name": name, "stage": f"example.{name}", "key": f"key of {id}", "seed": 7,
            "inputs": inputs or {}, "config": config or {}, "expected": expected, "title": title,
            "folder": self.folder(id).name, "provides": provides,
        })  # fmt: skip
        if done:
            self._write(id, provides, tables or {}, summary or {}, files or {}, tokens, config or {})
        plan = {"name": "example", "rounds": 1, "root": str(self.root), "final": id, "stages": self.entries}
        (self.root / "plan.json").write_text(json.dumps(plan))

    def _write(
        self, id: str, provides: list[str], tables: dict[str, list[Any]], summary: dict[str, Any],
        files: dict[str, str], tokens: int, config: dict[str, Any],
    ) -> None:  # fmt: skip
        folder = self.folder(id)
        folder.mkdir(parents=True)
        for name, rows in tables.items():
            write_table(folder, name, rows)
        for name, text in files.items():
            (folder / name).write_text(text)
        write_manifest(
            folder, stage=f"example.{id}", kind=" ".join(provides), key=f"key of {id}", config=config, source_hash="00",
            parents={"model": {"source": "/models/tiny/base", "fingerprint": "f1"}}, summary=summary,
            rows={name: len(rows) for name, rows in tables.items()},
            measured={"seconds": 2.0, "tokens": tokens, "memory": 3 << 20, "device": "cpu"},
            versions={"python": "3.11"},
        )  # fmt: skip
        link = self.root / id
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(folder, target_is_directory=True)

    def evaluate(self, id: str, model: str, right: Any, before: str = "", text: str = ANSWER) -> None:
        """An evaluation in which the prompts for which `right(number)` holds are answered well."""
        graded = []
        for number, prompt in enumerate(PROMPTS):
            said = "yes" if right(number) else f"{text} {number}"
            response = Response(prompt.id, 0, said, "stop", 3 + number % 2, None, {"stage": id})
            graded.append(Graded(prompt, response, float(right(number)), "right" if right(number) else "another text"))
        summary = results(graded) | {"suites": {}}
        grades = {one.prompt.id: float(one.value or 0) for one in graded}
        if before:
            summary["change"] = changes(PROMPTS, self.grades[before], grades)
        self.grades[id] = grades
        samples = [Sample(g.prompt.id, g.response.id, g.prompt.capability, g.value, g.reason) for g in graded]
        scores = [Score(g.response.id, "verifier", float(g.value or 0)) for g in graded]
        inputs = {"prompts": ["setup/heldout"], "model": model, **({"before": before} if before else {})}
        tables = {"responses": [one.response for one in graded], "samples": samples, "scores": scores}
        self.stage(id, ["evaluation"], tables, inputs, summary, tokens=140)

    grades: dict[str, dict[str, float]] = field(default_factory=dict)


def training() -> str:
    steps = [{"step": n, "loss": 1 / n, "grad_norm": 1.0, "kl": 0.1 * n} for n in range(1, 11)]
    return "".join(json.dumps(step) + "\n" for step in steps) + '{"step": 11, "lo'


def begun(root: Path) -> Written:
    """Until the base is evaluated and the data is made."""
    run = Written(root)
    root.mkdir(parents=True)
    run.stage("setup/heldout", ["eval_prompts"], {"prompts": PROMPTS})
    run.evaluate("setup/evaluate-base", "/models/tiny/base", base_right)
    drops = {"calls": {"held-out split": 3, "surplus": 0}, "answers": {"wrong": 1}}
    charged = {"usage": {"teacher": {"cost": 1.25}}, "spent": {"calls": {"cost": 1.25}}}
    made = [Prompt(({"role": "user", "content": f"Make {n}."},), "calls") for n in range(6)]
    run.stage("round-1/synthesize", ["prompts", "rows"], {"prompts": made, "rows": []},
              {"teacher": "/models/tiny/teacher"}, {"drops": drops, **charged}, tokens=60)  # fmt: skip
    return run


def choose(run: Written) -> None:
    """Sampling, scoring and selection: two samples gave the worse answer of each prompt."""
    prompts = [Prompt(({"role": "user", "content": f"Make {n}."},), "calls") for n in range(6)]
    answers = [
        Response(p.id, 2 * i, "good bad".split()[i], "stop", 2, None, count=1 + i) for p in prompts for i in (0, 1)
    ]
    run.stage("round-1/sample", ["responses"], {"responses": answers}, {"prompts": "round-1/synthesize"})
    scores = [Score(a.id, "reward", 2.0 if a.text == "good" else -1.0) for a in answers]
    curve = [{"n": n, "kl_bound": 0.0, "reward": float(n), "true": 0.25 * n} for n in (1, 2)]
    best = {"all": {"n": 6, "mean": 0.25, "any": 0.5, "combined": 0.5}}
    run.stage("round-1/score", ["scores"], {"scores": scores}, {"responses": "round-1/sample"},
              {"prompts": {"scored": 6}, "best_of_k": best, "best_of_n": {"combined": curve}})  # fmt: skip
    said = {"role": "assistant", "content": "good"}
    rows = [Row((*p.messages, said), "calls", reward=2.0) for p in prompts]
    pairs = [Pair(p.messages, said, {**said, "content": "bad"}, "calls", margin=3.0) for p in prompts]
    rejects = [Reject(a.id, "lower_score", a.text) for a in answers if a.text == "bad"]
    run.stage("round-1/select", ["rows", "pairs"], {"rows": rows, "pairs": pairs, "rejects": rejects},
              {"scores": "round-1/score"}, {"drops": {"pairs": {"equal_answers": 2}}})  # fmt: skip


def finish(run: Written) -> None:
    """The training, its evaluation and the gate."""
    preflight = {"rows": 6, "dropped": 1, "truncated": 0, "tokens_cut": 0, "tokens": 90, "trained_tokens": 30}
    summary = {"rows": 5, "steps": 10, "loss_first": 1.0, "loss_last": 0.1, "preflight": preflight}
    run.stage("round-1/sft", ["checkpoint"], {}, {"rows": ["round-1/select"], "init": "/models/tiny/base"}, summary,
              {"training.jsonl": training()}, tokens=90, config={"learning_rate": 0.001})  # fmt: skip
    run.evaluate("round-1/evaluate-sft", "round-1/sft", sft_right, "setup/evaluate-base")
    change = changes(PROMPTS, run.grades["setup/evaluate-base"], run.grades["round-1/evaluate-sft"])
    inputs = {"candidate": "round-1/sft", "evaluation": "round-1/evaluate-sft", "previous": "/models/tiny/base",
              "previous_evaluation": "setup/evaluate-base"}  # fmt: skip
    verdict = {"passed": True, "failed": [], "reasons": [], "kept": "candidate", "change": change}
    run.stage("round-1/gate", ["checkpoint", "evaluation_kept"], {}, inputs, verdict, {"training.jsonl": training()})
    history = {"ended": "done", "finished": "2026-11-20T22:00:00Z", "wall_seconds": 20.0, "stage_seconds": 18.0,
               "other_seconds": 2.0, "stages": {}}  # fmt: skip
    (run.root / "report.json").write_text(json.dumps({"history": [history]}))
