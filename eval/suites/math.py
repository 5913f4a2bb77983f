"""Mathematics: the final answer equals the reference as mathematics, whatever its form (math-verify)."""

import random
import re
from collections.abc import Iterator
from fractions import Fraction

from eval.suites.making import Answering, Item, about, asks, file_items, reference, says, write_suite
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

FORM = "Put the final answer into \\boxed{}."
_FINAL = re.compile(r"####\s*(.+?)\s*$")


def run(job: Job) -> None:
    items = file_items(job, _of_record) if "file" in job.inputs else _made(job.config.n, job.config.seed)
    write_suite(job, items, Answering("math", max_new_tokens=job.config.max_new_tokens))


def _made(n: int, seed: int) -> Iterator[Item]:
    rng, seen = random.Random(f"math {seed}"), set[str]()
    while len(seen) < n:
        category, question, answer = rng.choice((_sum, _share, _unknown))(rng)
        if question not in seen:
            seen.add(question)
            yield _item(question, answer, {"category": category})


def _item(question: str, answer: str, labels: dict[str, object]) -> Item:
    gold = says(f"The answer is $\\boxed{{{answer}}}$.")
    return Item(asks(f"{question}\n{FORM}"), Check("math", {"answers": [answer]}), gold, about=labels)


def _sum(rng: random.Random) -> tuple[str, str, str]:
    a, b, c = rng.randint(12, 99), rng.randint(2, 12), rng.randint(10, 99)
    return "arithmetic", f"What is {a} · {b} − {c}?", str(a * b - c)


def _share(rng: random.Random) -> tuple[str, str, str]:
    a, b, c, d = (rng.randint(1, 9) for _ in range(4))
    total = Fraction(a, b) + Fraction(c, d)
    answer = str(total) if total.denominator == 1 else f"\\frac{{{total.numerator}}}{{{total.denominator}}}"
    return "fractions", f"What is {a}/{b} + {c}/{d}?", answer


def _unknown(rng: random.Random) -> tuple[str, str, str]:
    x, a, b = rng.randint(-20, 20), rng.randint(2, 12), rng.randint(1, 40)
    return "equations", f"Solve for x: {a}x + {b} = {a * x + b}.", str(x)


def _of_record(record: Record) -> Item:
    question = str(reference(record, "problem", "question", "prompt"))
    answer = str(reference(record, "answer", "solution", "reference"))
    final, boxed = _FINAL.search(answer), _boxed(answer)
    told = final.group(1) if final else boxed or answer
    return _item(question, told.replace(",", "") if final else told, about(record, "level", "subject"))


def _boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{}`, braces within it matched."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return None
