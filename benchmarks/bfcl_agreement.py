"""Case by case, our function-call matching against the public checker of BFCL (`bfcl-eval`): `--write` for the list.

    python benchmarks/bfcl_agreement.py --peer /path/to/python-with-bfcl-eval --write

The package pins an older numpy (and imports `soundfile`, which it does not ask for), so it runs apart: it hands over
its records (Python functions, one and several calls), and gets back the calls that were made of their accepted answers:
the answer itself, and answers with something changed, most of them wrong. Here each record becomes a prompt as
`eval.suites.tool_use` makes it from a file.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import harness

CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip
MODEL = "gorilla-openfunctions-v2"
"""Any name that the checker knows and for which it leaves dots in function names alone."""
EACH, SHOWN = 4, 6
"""Changed answers of each record; differences of one kind that are shown."""
Calls = list[dict[str, Any]]
"""The checker's form: `{name: arguments}`."""


def main() -> None:
    arguments = harness.parser(__doc__ or "", records=150)
    arguments.add_argument("--peer", help="a Python that has bfcl-eval")
    arguments.add_argument("--step", choices=["records", "verdicts"], help="what the peer's process is asked for")
    given = arguments.parse_args()
    if given.step == "records":
        print(json.dumps({"version": version("bfcl-eval"), "records": their_records(given.records)}))
    elif given.step == "verdicts":
        print(json.dumps([their_verdict(case) for case in json.load(sys.stdin)]))
    else:
        peer_version, lines = compare(given.peer or sys.executable, given.records, given.seed)
        del sys.argv[1:]  # where the peer lies is nobody's business
        harness.report("Our function-call matching against BFCL's checker", lines, given, f"bfcl-eval {peer_version}")


def their_records(each: int) -> list[dict[str, Any]]:
    """The first so many records of each category, with the accepted answers beside the question."""
    import bfcl_eval

    data, found = Path(bfcl_eval.__file__).parent / "data", []
    for category in CATEGORIES:
        answers = {one["id"]: one["ground_truth"] for one in rows_of(data / "possible_answer", category)}
        for record in rows_of(data, category)[:each]:
            found.append({**record, "category": category, "ground_truth": answers[record["id"]]})
    return found


def rows_of(folder: Path, category: str) -> list[dict[str, Any]]:
    text = (folder / f"BFCL_v4_{category}.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def their_verdict(case: dict[str, Any]) -> bool:
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    record = case["record"]
    found = ast_checker(
        record["function"], case["calls"], record["ground_truth"], Language.PYTHON, record["category"], MODEL
    )
    return bool(found["valid"])


def our_verdict(case: dict[str, Any]) -> tuple[bool, str]:
    from eval.suites.making import called
    from eval.suites.tool_use import of_record
    from posttrain.checks.verifiers import grade

    calls = [(name, arguments) for call in case["calls"] for name, arguments in call.items()]
    verdict = grade(of_record(case["record"]).check, called(*calls))
    return verdict.value == 1.0, verdict.reason


def answers(record: dict[str, Any]) -> Calls:
    """The calls with the first accepted value of each parameter that has one."""
    return [{name: filled(given) for name, given in call.items()} for call in record["ground_truth"]]


def filled(accepted: dict[str, list[Any]]) -> dict[str, Any]:
    chosen = {name: next((one for one in values if one != ""), None) for name, values in accepted.items()}
    return {name: inner(value) for name, value in chosen.items() if value is not None}


def inner(value: Any) -> Any:
    """In the objects of an accepted value each key has the list of its own accepted values."""
    if isinstance(value, dict):
        return filled({key: one if isinstance(one, list) else [one] for key, one in value.items()})
    return [inner(one) for one in value] if isinstance(value, list) else value


Change = Callable[[random.Random, Calls], None]


def one_call(rng: random.Random, calls: Calls) -> tuple[dict[str, Any], str]:
    call = rng.choice(calls)
    return call, next(iter(call))


def rename(rng: random.Random, calls: Calls) -> None:
    call, name = one_call(rng, calls)
    call[name + "_x"] = call.pop(name)


def leave_out(rng: random.Random, calls: Calls) -> None:
    call, name = one_call(rng, calls)
    if call[name]:
        del call[name][rng.choice(list(call[name]))]


def add(rng: random.Random, calls: Calls) -> None:
    call, name = one_call(rng, calls)
    call[name]["surplus"] = 1


def alter(rng: random.Random, calls: Calls) -> None:
    call, name = one_call(rng, calls)
    if call[name]:
        parameter = rng.choice(list(call[name]))
        call[name][parameter] = altered(rng, call[name][parameter])


def altered(rng: random.Random, value: Any) -> Any:
    """The value in another type, in other words, or another value; of lists and objects also a part of them."""
    if isinstance(value, bool):
        return rng.choice([not value, str(value), int(value)])
    if isinstance(value, int):
        return rng.choice([float(value), value + 1, str(value)])
    if isinstance(value, float):
        return rng.choice([int(value), value + 0.25, str(value)])
    if isinstance(value, str):
        return rng.choice([value.upper(), value.replace(" ", "-") + ".", f" {value}", value + "x", value[1:], [value]])
    if isinstance(value, list) and value:
        place, copy = rng.randrange(len(value)), list(value)
        copy[place] = altered(rng, value[place])
        return rng.choice([copy, copy, value[::-1], value[:-1], [*value, value[0]]])
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        return rng.choice([rest, {**value, "surplus": 1}, {**value, key: altered(rng, value[key])}])
    return "x"


def fewer(rng: random.Random, calls: Calls) -> None:
    del calls[rng.randrange(len(calls))]


def twice(rng: random.Random, calls: Calls) -> None:
    calls.append(json.loads(json.dumps(rng.choice(calls))))


def shuffle(rng: random.Random, calls: Calls) -> None:
    rng.shuffle(calls)


CHANGES: dict[str, Change] = {
    "value": alter, "value too": alter, "value again": alter, "parameter left out": leave_out, "parameter added": add,
    "name": rename, "call left out": fewer, "call doubled": twice, "order": shuffle,
}  # fmt: skip


def cases_of(records: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    rng, found = random.Random(seed), []
    for record in records:
        found.append({"record": record, "calls": answers(record), "change": "none"})
        for change in rng.sample(sorted(CHANGES), EACH):
            calls = answers(record)
            CHANGES[change](rng, calls)
            found.append({"record": record, "calls": calls, "change": change.split(" again")[0].split(" too")[0]})
    return found


def in_peer(python: str, script: str, arguments: list[str], given: Any = None) -> Any:
    """What a script prints last, as JSON, when the peer's Python runs it with `given` on its input."""
    command = [python, script, *arguments]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def usable(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records that a suite can be made of, and the ids of the others."""
    from eval.suites.tool_use import of_record

    good, others = [], []
    for record in records:
        try:
            of_record(record)
            good.append(record)
        except (ValueError, TypeError, IndexError):  # what the suite tells of as a record to mend
            others.append(record["id"])
    return good, others


def compare(python: str, each: int, seed: int) -> tuple[str, list[str]]:
    """The checker's version, and the result."""
    theirs = in_peer(python, __file__, ["--step", "records", "--records", str(each)])
    records, others = usable(theirs["records"])
    cases = cases_of(records, seed)
    verdicts = in_peer(python, __file__, ["--step", "verdicts"], cases)
    agree, right, differ, shown = Counter[str](), Counter[str](), Counter[str](), list[str]()
    for case, verdict in zip(cases, verdicts, strict=True):
        ours, reason = our_verdict(case)
        agree[case["change"]] += ours == verdict
        right[case["change"]] += verdict
        if ours != verdict:
            kind = f"{'they accept' if verdict else 'we accept'}: {reason or case['change']}"
            differ[kind] += 1
            if differ[kind] <= SHOWN:
                shown.append(row(case, verdict, ours, reason))
    totals = Counter(case["change"] for case in cases)
    head = f"{len(cases):,} cases of {len(records):,} records: {agree.total():,} agree."
    left = f" No suite can be made of {', '.join(others)}." if others else ""
    table = harness.markdown(
        ["change", "cases", "right by bfcl-eval", "agree"],
        [[name, f"{totals[name]:,}", f"{right[name]:,}", f"{agree[name]:,}"] for name in sorted(totals)],
    )
    listed = ["", "| record | calls | accepted | bfcl-eval | here |", "|---|---|---|---|---|", *shown] if shown else []
    return theirs["version"], [head + left, "", *table, *listed]


def row(case: dict[str, Any], theirs: bool, ours: bool, reason: str) -> str:
    calls, truth = (json.dumps(part, ensure_ascii=False) for part in (case["calls"], case["record"]["ground_truth"]))
    return f"| {case['record']['id']} | `{calls[:160]}` | `{truth[:160]}` | {theirs} | {ours} ({reason}) |".replace(
        "\n", " "
    )


if __name__ == "__main__":
    main()
